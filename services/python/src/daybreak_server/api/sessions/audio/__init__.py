"""Converts the audio of clients into the format of journals: 16-bit PCM at 16 kHz. The code uses only the standard
library."""
