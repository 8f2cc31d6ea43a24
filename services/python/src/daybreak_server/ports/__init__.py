"""What the inside asks of the outside, in domain words: small protocols that ``adapters`` implement."""
