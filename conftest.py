"""Plugins of every test run, wherever the tests lie: order over workers, no process left, a line about skips."""

pytest_plugins = ["support.orphans", "support.scheduling", "support.skip_summary"]
