"""An app for each of the other servers, written as in that server's documentation. Each has its own environment."""
