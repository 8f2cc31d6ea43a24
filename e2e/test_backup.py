"""Backup, restore and the move to another Redis, with the commands of docs/upgrading.md."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daybreak import NotFoundError, Task
from e2e import external_redis
from e2e.doc_commands import Page, Shell, step
from testkit.kubernetes.deployment import WAKE_S, Deployment
from testkit.kubernetes.kube import ready
from testkit.kubernetes.values import REDIS
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

pytestmark = pytest.mark.full

PAGE = Page("upgrading.md")


@pytest.fixture(scope="module")
def deployment(install_daybreak: Callable[[], AbstractContextManager[Deployment]]) -> Iterator[Deployment]:
    """A separate installation, because a restore resets everything in it."""
    with install_daybreak() as installed:
        command = [
            "kubectl",
            "-n",
            installed.kube.namespace,
            "exec",
            "daybreak-redis-0",
            "--",
            "sh",
            "-c",
            "true",
        ]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"{installed.images.redis} has no shell")
        yield installed


@pytest.fixture
def shell(deployment: Deployment, tmp_path: Path) -> Shell:
    """A shell in which a test runs the page's commands as an administrator would."""
    return Shell(tmp_path, namespace=deployment.kube.namespace, url=deployment.client.url)


def test_a_restore_brings_back_the_tasks_of_the_backup(deployment: Deployment, shell: Shell) -> None:
    """After the restore, the ended task has its file, the running task runs again, and the queued task is still queued.

    The task that was submitted after the backup is unknown.
    """
    ended = deployment.submit("echo", {"message": "ended before", "steps": 2})
    text = _text(deployment, shell, deployment.follow(ended).wait_for_end(timeout_s=WAKE_S))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    running = deployment.submit("echo", {"message": "runs during the backup", "steps": 60, "step_s": 0.25})
    queued = deployment.submit("echo", {"message": "waits during the backup", "steps": 2}, start_at=tomorrow)
    deployment.follow(running).wait_for_step(10, timeout_s=WAKE_S)
    (backup,) = PAGE.commands("Redis")
    shell.run(backup)
    later = deployment.client.submit("echo", {"message": "submitted after the backup", "steps": 2})
    deployment.follow(later).wait_for_end(timeout_s=WAKE_S)
    (restore,) = PAGE.commands("Restore")
    shell.run(restore, {REDIS: deployment.images.redis})
    _wait_for_gateway(deployment)
    assert _text(deployment, shell, deployment.client.get(ended)) == text
    assert deployment.client.get(queued).state.value == "queued"
    deployment.client.cancel(queued)
    with pytest.raises(NotFoundError):
        deployment.client.get(later)
    done = deployment.follow(running).wait_for_end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 2, 1)
    after = deployment.submit("echo", {"message": "after the restore", "steps": 2})
    assert deployment.follow(after).wait_for_end(timeout_s=WAKE_S).state.value == "succeeded"


def test_tasks_survive_the_move_to_an_external_redis(deployment: Deployment, shell: Shell) -> None:
    """Every task is kept and continues. The old PVC and Secret are kept too, so that you can move back."""
    ended = deployment.submit("echo", {"message": "ended before", "steps": 2})
    text = _text(deployment, shell, deployment.follow(ended).wait_for_end(timeout_s=WAKE_S))
    running = deployment.submit("echo", {"message": "runs during the move", "steps": 240, "step_s": 0.25})
    deployment.follow(running).wait_for_step(5, timeout_s=WAKE_S)
    stop, start = PAGE.commands("Move to an external Redis")
    keys_before = shell.run(stop).split()[-1]
    (backup,) = PAGE.commands("Redis")
    shell.run(backup)
    _copy_to_external_redis(deployment, shell)
    keys_after = shell.run("kubectl -n daybreak exec external-redis-0 -- redis-cli DBSIZE").split()[-1]
    log(f"  keys before: {keys_before}, after: {keys_after}")
    deployment.values["redis"] = external_redis.values(deployment.kube.namespace)
    (shell.folder / "values.yaml").write_text(json.dumps(deployment.values), encoding="utf-8")
    output = shell.run(start)
    assert ended.id in output, "`daybreak tasks list` shows the task from before the move"
    _wait_for_gateway(deployment)
    assert _text(deployment, shell, deployment.client.get(ended)) == text
    done = deployment.follow(running).wait_for_end(timeout_s=WAKE_S)
    assert done.state.value == "succeeded"
    assert done.strikes <= 1
    deployment.assert_tasks_ended()
    assert not deployment.kube.pods("app.kubernetes.io/component=redis")
    claims = deployment.kube.core.list_namespaced_persistent_volume_claim(deployment.kube.namespace).items
    assert "data-daybreak-redis-0" in {claim.metadata.name for claim in claims}
    assert deployment.kube.secret("daybreak-redis") is not None


def _copy_to_external_redis(deployment: Deployment, shell: Shell) -> None:
    """Copy the data as the page says: run steps 3 and 4 of *Restore* on the new server's volume, before
    that server starts."""
    (restore,) = PAGE.commands("Restore")
    deployment.kube.create([external_redis.volume()])
    claim = {"claimName: data-daybreak-redis-0": f"claimName: {external_redis.NAME}"}
    shell.run(step(restore, 3, 4), {**claim, REDIS: deployment.images.redis})
    deployment.kube.create(external_redis.server(deployment.images.redis))
    wait_until(
        lambda: any(map(ready, deployment.kube.pods(f"app={external_redis.NAME}"))),
        timeout_s=120,
        what="the external Redis",
    )


def _text(deployment: Deployment, shell: Shell, done: Task) -> bytes:
    """The file of an echo task."""
    assert done.state.value == "succeeded", f"{done.id} {done.state.value}: {done.error}"
    return deployment.client.download(
        done, "echo.txt", shell.folder / f"{secrets.token_hex(4)}.txt"
    ).read_bytes()


def _wait_for_gateway(deployment: Deployment) -> None:
    wait_until(lambda: bool(deployment.client.pools()), timeout_s=60, what="a response of the gateway")
