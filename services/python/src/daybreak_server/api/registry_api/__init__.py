"""Workers and their models: how they register, and what clients and administrators see of them."""
