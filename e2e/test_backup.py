"""Backup, restore and the move to another Redis, by the very commands of docs/upgrading.md."""

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
from testkit.kubernetes.deployment import WAKE_S, House
from testkit.kubernetes.kube import ready
from testkit.kubernetes.values import REDIS
from testkit.kubernetes.waiting import wait_until
from testkit.log import say

pytestmark = pytest.mark.full

PAGE = Page("upgrading.md")


@pytest.fixture(scope="module")
def house(open_house: Callable[[], AbstractContextManager[House]]) -> Iterator[House]:
    """An installation of its own: a restore goes back in time for all that is in it."""
    with open_house() as made:
        command = ["kubectl", "-n", made.kube.namespace, "exec", "daybreak-redis-0", "--", "sh", "-c", "true"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"{made.images.redis} has no shell")
        yield made


@pytest.fixture
def shell(house: House, tmp_path: Path) -> Shell:
    """A person's shell, with the values of the release."""
    return Shell(tmp_path, namespace=house.kube.namespace, url=house.client.url)


def test_backup_and_restore(house: House, shell: Shell) -> None:
    """What had ended is there with its file, what ran and waited ends once more, what came later is not known."""
    ended = house.submit("echo", {"message": "ended before", "steps": 2})
    text = _text(house, shell, house.follow(ended).end(timeout_s=WAKE_S))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    ran = house.submit("echo", {"message": "ran at the backup", "steps": 60, "step_s": 0.25})
    waited = house.submit("echo", {"message": "waited at the backup", "steps": 2}, start_at=tomorrow)
    house.follow(ran).at_step(10, timeout_s=WAKE_S)
    (backup,) = PAGE.commands("Redis")
    shell.run(backup)
    later = house.client.submit("echo", {"message": "came after the backup", "steps": 2})
    house.follow(later).end(timeout_s=WAKE_S)
    (restore,) = PAGE.commands("Restore")
    shell.run(restore, {REDIS: house.images.redis})
    _answers(house)
    assert _text(house, shell, house.client.get(ended)) == text
    assert house.client.get(waited).state.value == "queued"
    house.client.cancel(waited)
    with pytest.raises(NotFoundError):
        house.client.get(later)
    done = house.follow(ran).end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 2, 1)
    after = house.submit("echo", {"message": "after the restore", "steps": 2})
    assert house.follow(after).end(timeout_s=WAKE_S).state.value == "succeeded"


def test_the_move_to_an_external_redis(house: House, shell: Shell) -> None:
    """Every task of before is there and goes on; the way back (claim and Secret of the old one) stays."""
    ended = house.submit("echo", {"message": "ended before", "steps": 2})
    text = _text(house, shell, house.follow(ended).end(timeout_s=WAKE_S))
    ran = house.submit("echo", {"message": "ran at the move", "steps": 240, "step_s": 0.25})
    house.follow(ran).at_step(5, timeout_s=WAKE_S)
    stop, begin = PAGE.commands("Move to an external Redis")
    here = shell.run(stop).split()[-1]
    (backup,) = PAGE.commands("Redis")
    shell.run(backup)
    _fill_the_other(house, shell)
    there = shell.run("kubectl -n daybreak exec elsewhere-0 -- redis-cli DBSIZE").split()[-1]
    say(f"  keys here: {here}, there: {there}")
    house.values["redis"] = external_redis.values(house.kube.namespace)
    (shell.folder / "values.yaml").write_text(json.dumps(house.values), encoding="utf-8")
    told = shell.run(begin)
    assert ended.id in told, "`daybreak tasks list` shows what was there"
    _answers(house)
    assert _text(house, shell, house.client.get(ended)) == text
    done = house.follow(ran).end(timeout_s=WAKE_S)
    assert done.state.value == "succeeded"
    assert done.strikes <= 1
    house.settle()
    assert not house.kube.pods("app.kubernetes.io/component=redis")
    claims = house.kube.core.list_namespaced_persistent_volume_claim(house.kube.namespace).items
    assert "data-daybreak-redis-0" in {one.metadata.name for one in claims}
    assert house.kube.secret("daybreak-redis") is not None


def _fill_the_other(house: House, shell: Shell) -> None:
    """For a server of your own the page says: step 4 of Restore on its volume, before its first start."""
    (restore,) = PAGE.commands("Restore")
    house.kube.create([external_redis.volume()])
    claim = {"claimName: data-daybreak-redis-0": f"claimName: {external_redis.NAME}"}
    shell.run(step(restore, 3, 4), {**claim, REDIS: house.images.redis})
    house.kube.create(external_redis.server(house.images.redis))
    wait_until(
        lambda: any(map(ready, house.kube.pods(f"app={external_redis.NAME}"))),
        timeout_s=120,
        what="the other Redis",
    )


def _text(house: House, shell: Shell, done: Task) -> bytes:
    """The file that an echo task has left."""
    assert done.state.value == "succeeded", f"{done.id} {done.state.value}: {done.error}"
    return house.client.download(done, "echo.txt", shell.folder / f"{secrets.token_hex(4)}.txt").read_bytes()


def _answers(house: House) -> None:
    wait_until(lambda: bool(house.client.pools()), timeout_s=60, what="an answer of the gateway")
