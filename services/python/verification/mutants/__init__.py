"""Plants bugs. Each bug is planted in a private copy of the source, and a test of the ordinary suite must
catch it.

``python -m verification.mutants`` plants all of them, each alone in a copy; ``--only NAME`` plants some. The working
tree never changes. A bug that survives shows that a test is missing. The catalogue is data: ``catalogue_*``.
"""
