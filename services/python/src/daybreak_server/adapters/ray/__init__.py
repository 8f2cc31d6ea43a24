"""The adapter for Ray: the ranks' rendezvous, facts about nodes, drain notices, Serve's REST API, and a fast way to
start Ray."""
