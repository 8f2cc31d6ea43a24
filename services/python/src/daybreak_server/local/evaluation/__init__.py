"""``daybreakd sessions evaluate``: how well, and how late, a pool translates for many users at once."""
