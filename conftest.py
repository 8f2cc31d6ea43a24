"""Plugins of every test run, wherever the tests lie: no process may be left, and skips are summed up at the end."""

pytest_plugins = ["support.orphans", "support.skip_summary"]
