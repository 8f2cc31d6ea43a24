"""The command ``daybreak``. No other package imports typer and rich."""
