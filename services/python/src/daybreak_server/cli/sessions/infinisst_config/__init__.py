"""``config_file`` reads configuration files of InfiniSST, and ``mapping`` turns them into settings of Daybreak."""
