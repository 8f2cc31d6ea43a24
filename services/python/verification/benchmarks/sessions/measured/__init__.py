"""Measures, in real time, how a group's scheduler and the tiny speech model serve users who speak."""
