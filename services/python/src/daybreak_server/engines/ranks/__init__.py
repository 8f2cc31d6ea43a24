"""The ranks of a group: they meet, agree at each step, and end together. The same for every kind of group.

From the inside out:

* ``consensus``      decides what all ranks do next, from their reports and the store's control bits (pure)
* ``channel``        framed messages between two ranks
* ``control_group``  the channels between the leader and each of its followers
* ``rendezvous``     how the ranks of a new group find each other
* ``process_group``  the ``torch.distributed`` group, for the workload's data
* ``lockstep``       how one rank runs a generator, with a point of agreement at each step
* ``loops``          the interface of the leader's and the follower's loops, which each kind of group implements
* ``rank_deps``      what a rank gets from the process that runs it, and a leader's loop from its rank
* ``rank_lifecycle`` the thread of a rank: join, load, warm up, serve, leave

How a hang ends, for example in a collective:

1. The work thread beats no more (``common.heartbeat``), and after ``lease.stall_s`` counts as stalled.
2. The leader's lease renewer notices (``common.lease_renewer``) and breaks the group: the task gets a strike, and the
   process ends. If only a follower hangs, the leader waits for its report and stalls too.
3. The connections of the control group close, so all other ranks end too (``control_group``).
4. Ray Serve's health check finds the dead rank and restarts the whole group.

If the call holds Python's lock, no thread of the leader's process can run. Then the watchdog (``common.watchdog``),
which is a process of its own, kills it instead.
"""
