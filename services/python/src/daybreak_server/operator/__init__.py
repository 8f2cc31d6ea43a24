"""The operator: keeps the RayCluster of each GeneratorPool as the pool's spec says.

``crd`` holds the resource's models, ``planner`` decides without I/O, and ``controller`` observes and acts.
"""
