"""The rules of Daybreak: states, transitions and policies. No module does I/O or imports third-party code."""
