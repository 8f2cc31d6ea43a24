"""Groups that run tasks, one at a time, on all ranks in lockstep.

From the inside out:

* ``attempt``        one attempt at a task on the leader, with its checkpoints, events and artifacts
* ``task_leases``    the part of the lease renewer that the leader's loop needs
* ``leader``, ``follower``  the loops of the leader and of a follower
* ``loops``          gives these loops to the groups of pools of kind ``jobs``
"""
