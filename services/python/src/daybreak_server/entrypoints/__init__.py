"""Where each process of a deployment begins.

* ``gateway``, ``operator`` and ``watchdog`` start the processes of these names.
* ``ray_serve`` has the deployments of Ray Serve: the groups and the API.
* ``ray_start`` is the fast ``ray start`` of Daybreak's image.
* ``ray_manager`` runs the manager of models as an actor on Ray.
* ``worker`` starts a worker, and ``worker_bundle`` copies the worker into a folder for other images.
"""
