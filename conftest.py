"""Plugins of every test run, wherever the tests lie: order over workers, no process left, a line about skips."""

pytest_plugins = [
    "testkit.orphans",
    "testkit.scheduling",
    "testkit.serializable_reports",
    "testkit.skip_summary",
]
