"""Audio as clients send it, turned into that of journals: 16-bit PCM at 16 kHz. Standard library only."""
