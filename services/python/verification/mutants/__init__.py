"""Planted bugs: each is put into a private copy of the source, and a test of the ordinary suite must catch it.

``python -m verification.mutants`` plants all of them, one after the other; ``--only NAME`` some. The working tree is never
touched. What survives is a test that is missing. The catalogue is data: ``catalogue_*``.
"""
