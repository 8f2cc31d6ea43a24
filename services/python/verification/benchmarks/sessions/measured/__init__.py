"""Measured, not simulated: the engine of a group with the tiny speech model, and users who speak in real time."""
