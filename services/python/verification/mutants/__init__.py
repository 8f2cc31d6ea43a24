"""Plants bugs. Each bug is planted alone in a private copy of the source, and a test of the ordinary suite must
catch it.

``python -m verification.mutants`` plants all bugs; ``--only NAME`` plants those with NAME in their names. The working
tree never changes. A bug that survives shows that a test is missing. The modules ``catalogue_*`` list the bugs.
"""
