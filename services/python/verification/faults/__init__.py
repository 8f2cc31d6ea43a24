"""The fault tests kill, freeze and cut off real processes of Daybreak and its Redis server, while external clients
record what they see.

The main modules, from the inside out:

* ``failpoints``   named places, in wrappers around the ports, where a process kills itself
* ``components``   what the process of a gateway or of a rank runs
* ``fork_server``  the parent of all components, so that most of them start in milliseconds; ``processes`` is its client
* ``cluster``      runs a Redis server, gateways and groups, and restarts dead ones as Kubernetes would; ``replicas``
  describes the processes that ``cluster`` restarts
* ``history``      what the clients record: two lines per call, one line per event; ``load`` has the clients
* ``checker``      finds the broken promises in a history (pure); ``checks`` has its rules
* ``schedule``     makes the faults and the clients' calls from a seed (pure); ``mixed`` runs them
* ``scenarios``    each tests one promise and saves its figures; ``scenario_catalogue`` has all of them by name
* ``wish``         what a request to a serving pool or a model asks for, and the exact bytes of its answer
* ``serving``      faults of serving pools; ``workers`` has those of models on workers, ``sessions`` those of streaming
  sessions
* ``environment``  faults of the network, disk, memory, clocks and S3
* ``system``       faults in a whole ``daybreakd up`` with Ray

A seed repeats the schedule of faults and calls. It cannot repeat how the operating system interleaves them, so a
failed run keeps its history: ``python -m verification.faults check HISTORY`` checks it again.
"""
