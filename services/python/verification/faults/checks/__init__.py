"""The promises, a room each; every check is a pure function from what was told to violations."""
