"""The pytest plugins of every test run: orphan processes, order of files, serializable reports, summary of skips, and
no garbage collection of what lives until the end.
"""

pytest_plugins = [
    "testkit.orphans",
    "testkit.xdist_distribution",
    "testkit.serializable_reports",
    "testkit.skip_summary",
    "testkit.gc_of_collection",
]
