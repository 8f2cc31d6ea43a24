"""The boundaries of the server, in domain words: small protocols that ``adapters`` implement."""
