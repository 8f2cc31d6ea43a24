"""The fault lab: real parts of Daybreak, killed, frozen and cut, while clients outside write down all they see.

The parts, from the inside out:

* ``failpoints``  named places inside the parts where a process kills itself, put around the ports
* ``parts``       what runs in a gateway's and in a rank's process
* ``zygote``      a fork server without threads: a part starts in milliseconds
* ``cluster``         a server, gateways and groups, restarted when they die, as Kubernetes would
* ``history``     what the clients did and saw, line by line;  ``load``  those clients
* ``checker``     pure: a history → the promises that it breaks
* ``schedule``    pure: a seed → what is done to whom and when;  ``mixed``  runs it
* ``scenarios``   one promise each, with its figures

A seed repeats the schedule of faults and of the clients' calls. It cannot repeat what the operating system
makes of them, so a run that failed is kept as its history: ``python -m verification.faults check HISTORY`` decides it again.
"""
