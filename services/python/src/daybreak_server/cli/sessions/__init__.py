"""``daybreakd sessions``: configuration files of InfiniSST, and the evaluation of pools of streaming sessions.

* ``commands`` has the commands.
* ``infinisst_config`` reads a configuration file of InfiniSST, and turns it into settings of Daybreak.
* ``evaluation`` measures a pool of sessions, on this machine or on another one.
"""
