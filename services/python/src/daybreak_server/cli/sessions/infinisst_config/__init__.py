"""Reads configuration files of InfiniSST (``config_file``), and turns them into settings of Daybreak (``mapping``)."""
