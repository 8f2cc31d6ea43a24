"""What a setting may be, by kind: numbers, addresses, files, and what contradicts what. Only the file is read."""
