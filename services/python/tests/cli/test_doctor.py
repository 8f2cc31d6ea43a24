"""``daybreakd doctor``: what is in order is said, what is not is said with what to do."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.server_facts import RedisFacts
from daybreak_server.cli.doctor import cluster, redis
from daybreak_server.cli.doctor.checks import Check
from daybreak_server.cli.doctor.report import as_lines, broken, examine
from daybreak_server.domain.causes import Cause
from daybreak_server.settings.tree import Settings
from testkit.ports import free_port
from testkit.valkey import Server

if TYPE_CHECKING:
    from .conftest import Daybreakd

ECHO = {"echo": {"workload": "echo"}}


def report(tmp_path: Path, **tree: object) -> dict[str, Check]:
    """The checks of these settings, by what they are about."""
    base: dict[str, object] = {"data_dir": tmp_path / "data", "http": {"port": 0}, "pools": ECHO}
    return {check.what: check for check in examine(Settings.model_validate({**base, **tree}))}


def test_a_machine_in_order(daybreakd: Daybreakd) -> None:
    """With everything installed and default settings there is nothing to mend: code 0, a line each."""
    done = daybreakd("doctor", DAYBREAK_POOLS__ECHO__WORKLOAD="echo", DAYBREAK_HTTP__PORT="0")
    assert done.code == 0, done.out
    for line in ("✓ ray", "✓ redis", "✓ pool echo", "✓ files", "✓ port", "✓ gpus"):
        assert line in done.out
    assert "✗" not in done.out


def test_an_untested_ray_is_told_of(
    daybreakd: Daybreakd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works, so the code is 0; the line says why it starts slower."""
    info = tmp_path / "ray-2.99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.99.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = daybreakd("doctor", DAYBREAK_POOLS__ECHO__WORKLOAD="echo", DAYBREAK_HTTP__PORT="0")
    assert done.code == 0, done.out
    assert "! ray " in done.out
    assert "Ray 2.99.0 is installed" in done.out


def test_what_is_broken_is_code_1(daybreakd: Daybreakd) -> None:
    """One broken thing is code 1, a ✗, and a line that says what to do; JSON has the same."""
    environ = {
        "DAYBREAK_POOLS__ECHO__WORKLOAD": "echo",
        "DAYBREAK_POOLS__ODD__WORKLOAD": "odd",
        "DAYBREAK_HTTP__PORT": "0",
    }
    done = daybreakd("doctor", **environ)
    assert done.code == 1
    lines = done.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("✗ pool odd"))
    assert "no workload 'odd' is installed; there are: " in lines[at]
    assert lines[at + 1].strip() == "→ mend DAYBREAK_POOLS__ODD__WORKLOAD"
    assert lines[-1].startswith("1 to mend")
    checks = json.loads(daybreakd("doctor", "--json", **environ).out)
    assert [check["what"] for check in checks if check["level"] == "error"] == ["pool odd"]


def test_each_pools_model_is_looked_at(tmp_path: Path) -> None:
    """A model's folder that is missing or no model is found before a GPU waits for it."""
    (tmp_path / "empty").mkdir()
    checks = report(
        tmp_path,
        pools={
            "echo": {"workload": "echo", "model": str(tmp_path / "none")},
            "video": {"workload": "video", "model": str(tmp_path / "empty")},
        },
    )
    assert checks["pool echo"].level == checks["pool video"].level == "error"
    assert "model_index.json" in checks["pool video"].found
    assert checks["pool video"].advice == f"daybreakd models verify {tmp_path / 'empty'}"
    assert checks["torch"].level == "ok"


def test_a_class_that_cannot_be_imported(tmp_path: Path) -> None:
    """The API takes tasks of such a pool and no group ever starts: it is found before they wait."""
    check = report(tmp_path, pools={"odd": {"workload": "testkit.noting:ABSENT"}})["pool odd"]
    assert check.level == "error"
    assert "cannot import 'testkit.noting:NoSuchClass'" in check.found
    assert "testkit.noting:NoSuchClass" in check.advice


def test_what_a_rank_said_last(tmp_path: Path, valkey: Server) -> None:
    """A pool whose groups do not come up says why, until one does."""
    queue = RedisQueue(valkey.url, pool="echo")
    redis = {"url": valkey.url, "timeout_s": 30}
    assert "groups of echo" not in report(tmp_path, redis=redis)
    queue.failed(Cause(reason="RanksFail", message="UnknownWorkloadError: cannot import 'a.b:C'"))
    check = report(tmp_path, redis=redis)["groups of echo"]
    assert (check.level, check.found) == ("error", "UnknownWorkloadError: cannot import 'a.b:C'")
    queue.failed(Cause(reason="RanksFail", message="GroupBrokenError: rank 0 is gone"), rank=1)
    assert report(tmp_path, redis=redis)["groups of echo"].found == check.found, "the first one knows why"
    queue.close()


def test_the_store_of_files_is_tried(tmp_path: Path) -> None:
    """A folder that cannot be is found by trying, and the message is the store's own."""
    (tmp_path / "file").write_text("")
    files = report(tmp_path, artifacts={"url": (tmp_path / "file" / "below").as_uri()})["files"]
    assert files.level == "error"
    assert str(tmp_path / "file" / "below") in files.found
    assert files.advice == "a file or a symbolic link stands where a folder is needed"
    assert report(tmp_path)["files"].level == "ok"
    assert os.listdir(tmp_path / "data" / "artifacts") == []


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """A taken port is a warning (a Daybreak may run already); an address that is not ours is an error."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = report(tmp_path, http={"port": port})["port"]
    assert (taken.level, f"127.0.0.1:{port} is taken" in taken.found) == ("warning", True)
    assert "DAYBREAK_HTTP__PORT" in taken.advice
    assert report(tmp_path, http={"port": port})["port"].level == "ok"
    assert report(tmp_path, http={"host": "192.0.2.1", "port": port})["port"].level == "error"


def test_gpus_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool on `cuda` wants a GPU for each rank of each group; what nvidia-smi says is shown."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\necho 'NVIDIA H200, 143771 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    pool = {"workload": "echo", "device": "cuda", "ranks": 2, "groups": 1}
    enough = report(tmp_path, pools={"echo": pool})["gpus"]
    assert (enough.level, enough.found) == ("ok", "NVIDIA H200, 143771 MiB, NVIDIA H200, 143771 MiB")
    few = report(tmp_path, pools={"echo": {**pool, "groups": 2}})["gpus"]
    assert few.level == "error"
    assert "need 4" in few.found
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert "none seen" in report(tmp_path)["gpus"].found


def redis_report(tmp_path: Path, url: str) -> dict[str, Check]:
    checks = report(tmp_path, redis={"url": url, "timeout_s": 30})
    return {what: check for what, check in checks.items() if what.startswith("redis")}


def test_a_redis_in_order(tmp_path: Path, valkey: Server) -> None:
    """A server of the user's that is new, bounded, durable and near has four lines without a complaint."""
    with valkey.client() as client:
        client.config_set("maxmemory", "100mb")
        try:
            checks = redis_report(tmp_path, valkey.url)
        finally:
            client.config_set("maxmemory", "0")
    assert list(checks) == ["redis", "redis memory", "redis disk", "redis latency"]
    assert {what: check.level for what, check in checks.items() if check.level == "error"} == {}
    assert checks["redis"].found.endswith(f"at {valkey.url}")
    assert checks["redis memory"].level == "ok"
    assert checks["redis disk"].found == "append-only file, fsync everysec"


@pytest.mark.parametrize(
    ("option", "value", "what", "level", "words"),
    [
        ("maxmemory-policy", "allkeys-lru", "redis memory", "error", "maxmemory-policy noeviction"),
        ("maxmemory", "0", "redis memory", "warning", "3/4"),
        ("appendonly", "no", "redis disk", "error", "appendonly yes"),
        ("appendfsync", "no", "redis disk", "warning", "everysec"),
    ],
)
def test_a_redis_that_would_lose_tasks(
    tmp_path: Path, valkey: Server, option: str, value: str, what: str, level: str, words: str
) -> None:
    """Each setting of the server that could lose accepted tasks is found, with the command to mend it."""
    with valkey.client() as client:
        before = client.config_get(option)
        client.config_set(option, value)
        try:
            check = redis_report(tmp_path, valkey.url)[what]
        finally:
            for name, old in before.items():
                client.config_set(name, old)
    assert check.level == level
    assert words in check.advice


def test_a_redis_that_is_not_there(tmp_path: Path) -> None:
    """An address that nobody answers at is an error that shows the address, without its password."""
    url = f"redis://:hunter2@127.0.0.1:{free_port()}"
    checks = redis_report(tmp_path, url)
    assert list(checks) == ["redis"]
    assert checks["redis"].level == "error"
    assert "redis://:***@127.0.0.1" in checks["redis"].found
    assert "hunter2" not in str(checks)
    assert "DAYBREAK_REDIS__URL" in checks["redis"].advice


def test_a_redis_that_refuses_the_password(tmp_path: Path, valkey: Server) -> None:
    """The password is named as the cause, and where it is set."""
    with valkey.client() as client:
        client.acl_setuser("daybreak", enabled=True, passwords=["+right"], keys=["*"], commands=["+@all"])
        try:
            checks = redis_report(tmp_path, valkey.url.replace("//", "//daybreak:wrong@"))
        finally:
            client.acl_deluser("daybreak")
    assert "refuses the user or the password" in checks["redis"].found
    assert checks["redis"].advice.startswith("correct them in DAYBREAK_REDIS__URL")


def test_what_a_fail_over_would_lose(tmp_path: Path) -> None:
    """With Sentinel, a lost master takes what no replica had; the report names the setting against it."""
    few = redis._fail_over(RedisFacts(replicas=0), 1)
    assert (few.level, few.found) == ("warning", "no replica follows the master")
    loses = redis._fail_over(RedisFacts(replicas=2), 0)
    assert (loses.level, "WAIT_REPLICAS" in loses.advice) == ("warning", True)
    assert redis._fail_over(RedisFacts(replicas=2), 1).level == "ok"


def test_sentinels_that_are_not_there(tmp_path: Path) -> None:
    """Each has its line, and the master that nobody names an error."""
    address = f"127.0.0.1:{free_port()}"
    redis = {"url": "redis://:pw@any/0", "sentinels": address, "sentinel_master": "mymaster"}
    checks = report(tmp_path, redis=redis)
    assert (checks["sentinel"].level, checks["sentinel"].found.startswith(address)) == ("warning", True)
    assert checks["redis"].advice.startswith("is the name right (DAYBREAK_REDIS__SENTINEL_MASTER)")


def test_a_redis_that_is_old_slow_or_silent() -> None:
    """What cannot be had here as a server: an old one, a far one, and one that forbids CONFIG."""
    old = redis.judge_redis(RedisFacts(product="redis", version="6.2.14", compatible=(6, 2)), "redis://old")
    assert [check.level for check in old] == ["error", "warning", "warning", "ok"]
    assert old[0].found == "redis 6.2.14 at redis://old is too old"
    far = redis.judge_redis(RedisFacts(compatible=(7, 0), ping_ms=80.0), "redis://far")
    assert (far[-1].level, far[-1].found) == ("warning", "80 ms")


def test_more_ranks_than_processors(tmp_path: Path) -> None:
    """More ranks than CPUs works, slowly: a warning."""
    check = report(tmp_path, pools={"echo": {"workload": "echo", "ranks": 500}})["processors"]
    assert check.level == "warning"
    assert check.found.endswith("for 500 rank(s)")


def test_the_report_counts() -> None:
    """The last line tells how much there is to do."""
    fine = Check(level="ok", what="a", found="b")
    odd = Check(level="warning", what="longer", found="c", advice="do")
    assert as_lines([fine]).splitlines() == ["✓ a  b", "", "all is in order"]
    assert as_lines([fine, odd]).splitlines() == [
        "✓ a       b",
        "! longer  c",
        "          → do",
        "",
        "0 to mend, 1 to know of",
    ]
    assert not broken([fine, odd])


def test_a_cluster_without_its_operators(tmp_path: Path) -> None:
    """Each absent one is named with what follows from it and what to do."""
    bare = {check.what: check for check in cluster.judge(frozenset({"apps"}))}
    assert {what: check.level for what, check in bare.items()} == dict.fromkeys(bare, "error")
    assert "no group starts" in bare["KubeRay"].found
    assert "keda chart" in bare["KEDA"].advice
    whole = cluster.judge(frozenset({"ray.io", "keda.sh", "daybreak.dev"}))
    assert {check.level for check in whole} == {"ok"}


def test_a_kubernetes_is_asked_where_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said on a laptop; a kubeconfig that is of no use, and one whose server is not there, are said."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert list(cluster.examine(Settings())) == []
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")  # a pod without an account
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    (check,) = cluster.examine(Settings())
    assert (check.level, "were not looked for" in check.found) == ("warning", True)


def test_a_model_on_s3_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is not there is said of the pool that needs it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    check = report(
        tmp_path,
        pools={"echo": {"model": "s3://models/wan"}},
        artifacts={"s3": {"endpoint_url": f"http://127.0.0.1:{free_port()}"}},
    )["pool echo"]
    assert check.level == "error"
    assert check.found.startswith("model s3://models/wan at http://127.0.0.1:")
