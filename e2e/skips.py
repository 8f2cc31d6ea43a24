"""The tests that may be skipped, and why. Any other skipped test fails the run."""

from __future__ import annotations

from typing import Final

_NO_SHELL = "the image of Redis has no shell; --redis-image selects another image"
ALLOWED: Final[dict[str, str]] = {
    "test_a_rank_gets_a_gpu": "no node advertises nvidia.com/gpu",
    "test_a_restore_brings_back_the_tasks_of_the_backup": _NO_SHELL,
    "test_tasks_survive_the_move_to_an_external_redis": _NO_SHELL,
    "test_tasks_survive_an_upgrade_from_the_previous_version_and_back": "no --previous-image; see `make previous`",
    "test_tasks_survive_an_upgrade_and_a_rollback": "no --next-image; `make e2e-full` passes it",
}
"""Name of the test → why it may be skipped."""
