"""Runs tasks on a group of ranks: the leader's and the followers' loops, and how they agree at every step.

The parts, from the inside out:

* ``verdict``    pure: what all ranks do next, from what each reports and what the store says
* ``pulse``      when work last advanced, and how long it may take to advance again
* ``progress``   pure: which events are due, and how much time is left
* ``channel``    framed messages between two ranks;  ``peers``  the control group made of them
* ``keeper``     the leader's thread that keeps the lease while the work advances
* ``attempt``    one attempt at a task on one rank;  ``files``  its checkpoints and artifacts
* ``leader``, ``follower``  the loops;  ``member``  the thread of a rank, from joining to leaving
"""
