"""The operator: it keeps each GeneratorPool's RayCluster as the pool's spec wants it.

``plan`` decides and touches nothing; ``shell`` looks, carries out what was decided, and knows nothing else.
"""
