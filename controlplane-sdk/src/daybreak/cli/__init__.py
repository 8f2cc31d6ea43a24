"""The command `daybreak`: the only room that knows typer and rich."""
