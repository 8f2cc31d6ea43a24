"""The gang engine: runs one task at a time on all ranks of a group, in lockstep.

From the inside out:

* ``verdict``        decides what all ranks do next, from their reports and the store's control bits (pure)
* ``channel``        framed messages between two ranks
* ``control_group``  the channels between the leader and each of its followers
* ``rendezvous``     how the ranks of a new group find each other
* ``process_group``  the ``torch.distributed`` group, for the workload's data
* ``lockstep``       how one rank runs a task, with a point of agreement at each step
* ``attempt``        one attempt at a task on the leader, with its checkpoints, events and artifacts
* ``task_leases``    the part of the lease renewer that the leader's loop needs
* ``leader``, ``follower``  the loops of the leader and of a follower in a group that runs tasks
* ``loops``          the interface of the loops, which each kind of group implements differently
* ``rank_lifecycle`` the thread of a rank: join, load, warm up, serve, leave
* ``rank_deps``      what a rank gets from the process that runs it

Code that does not depend on lockstep (lease, watchdog, heartbeat, files) is in ``engines.common``.
"""
