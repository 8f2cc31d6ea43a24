"""The pytest plugins of every test run: orphan processes, order of files, serializable reports, summary of skips."""

pytest_plugins = [
    "testkit.orphans",
    "testkit.xdist_distribution",
    "testkit.serializable_reports",
    "testkit.skip_summary",
]
