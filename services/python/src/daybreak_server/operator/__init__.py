"""The operator: keeps the RayCluster of each GeneratorPool in the state that the pool's spec describes.

``crd`` holds the resource's models, ``planner`` decides without I/O, and ``controller`` observes and acts.
"""
