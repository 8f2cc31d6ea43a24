"""The pytest plugins of every test run. They fail a run that leaves processes behind, distribute test files to xdist's
workers, make reports serializable, summarize skips, keep the garbage collector away from objects that live until the
end, and import no test file of which ``-m`` deselects every test.
"""

pytest_plugins = [
    "testkit.orphans",
    "testkit.xdist_distribution",
    "testkit.serializable_reports",
    "testkit.skip_summary",
    "testkit.gc_of_collection",
    "testkit.marked_files",
]
