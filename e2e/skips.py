"""Which tests may be skipped, and why. One that is skipped and not listed fails the run."""

from __future__ import annotations

from typing import Final

ALLOWED: Final[dict[str, str]] = {
    "test_a_gpu_for_a_rank": "no node advertises nvidia.com/gpu",
    "test_backup_and_restore": "Redis's image has no shell; --redis-image names one that has",
    "test_the_move_to_an_external_redis": "the same",
    "test_from_the_version_before_and_back": "no --previous-image; `make previous` says how to have one",
    "test_upgrade_and_rollback_with_tasks": "no --next-image was given; `make e2e-full` gives one",
}
"""Name of the test → the reason that it gives."""
