"""The gang engine: runs one task at a time on all ranks of a group, in lockstep.

From the inside out:

* ``verdict``        decides what all ranks do next, from their reports and the store's control bits (pure)
* ``channel``        framed messages between two ranks
* ``control_group``  the star of channels between the leader and its followers
* ``rendezvous``     how the ranks of a new group find each other
* ``process_group``  the ``torch.distributed`` group, for the workload's data
* ``lockstep``       how one rank runs a task, with a point of agreement at each step
* ``attempt``        one attempt at a task on the leader, with its checkpoints, events and artifacts
* ``task_leases``    what the loop of tasks needs of the lease renewer
* ``leader``, ``follower``  the loops
* ``loops``          which loops run; they differ between the kinds of groups
* ``rank_lifecycle`` the thread of a rank: join, load, warm up, serve, leave
* ``rank_deps``      what a rank gets from the process that runs it

Code that does not depend on lockstep (lease, watchdog, heartbeat, files) is in ``engines.common``.
"""
