"""``daybreakd doctor``: checks what Daybreak needs on this machine and says how to fix what is missing."""
