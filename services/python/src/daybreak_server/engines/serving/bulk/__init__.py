"""Tasks of a group that answers requests: a JSONL file is worked off in the batches that requests leave free.

* :mod:`.jsonl` reads lines, with their numbers and within limits. Pure.
* :mod:`.ledger` is what a checkpoint says. Pure.
* :mod:`.output` has the output: a local file, whose parts are stored in the blob store beside the work.
* :mod:`.source` finds the file that a task names, and copies it.
* :mod:`.windows` computes some lines ahead, and blames a line for an error only if it is alone with it.
* :mod:`.metrics` counts the lines.
* :mod:`.run` joins them to the ``run`` of one task.
* :mod:`.task_loop` claims tasks on a thread of the leader, with the loop of groups that run jobs.
"""
