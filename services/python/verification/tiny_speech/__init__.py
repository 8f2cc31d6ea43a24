"""The tiny speech translator: its grammar, its synthetic speech, its training, and its score."""
