"""Tasks of a group that answers requests. Each task computes the lines of a JSONL file, in the part of each
batch that requests leave free.

* :mod:`.jsonl` reads lines, with their numbers and within limits. Pure.
* :mod:`.ledger` is the content of a checkpoint. Pure.
* :mod:`.output` writes the output to a local file. Its parts are stored in the blob store while the work continues.
* :mod:`.source` finds the file that a task names, and copies it.
* :mod:`.windows` computes some lines ahead. If several lines fail together, it finds those that also fail alone.
* :mod:`.metrics` counts the lines.
* :mod:`.run` is the ``run`` of one task, and uses the modules above.
* :mod:`.task_loop` claims tasks on a thread of the leader, with the same loop as in groups that run jobs.
"""
