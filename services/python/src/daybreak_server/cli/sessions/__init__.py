"""``daybreakd sessions``: configuration files of InfiniSST, and the evaluation of pools of streaming sessions."""
