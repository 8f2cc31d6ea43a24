"""Tests of ``daybreakd doctor``, which shows what works, what does not work, and how to fix it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.server_facts import RedisFacts
from daybreak_server.cli.doctor import cluster, redis
from daybreak_server.cli.doctor.check import Check
from daybreak_server.cli.doctor.checks import as_lines, broken, examine
from daybreak_server.domain.causes import Cause
from daybreak_server.local.free_ports import free_port
from daybreak_server.settings.tree import Settings
from daybreak_server.workloads.speech.spec import TINY
from testkit.valkey import Server

if TYPE_CHECKING:
    from .conftest import Daybreakd

ECHO = {"echo": {"workload": "echo"}}


def report(tmp_path: Path, **tree: object) -> dict[str, Check]:
    """Check these settings. Returns the checks by their subject."""
    base: dict[str, object] = {"data_dir": tmp_path / "data", "http": {"port": 0}, "pools": ECHO}
    return {check.what: check for check in examine(Settings.model_validate({**base, **tree}))}


def test_a_machine_without_problems_gives_exit_code_0(daybreakd: Daybreakd) -> None:
    """If everything is installed, each check of the default settings prints one line."""
    result = daybreakd("doctor", DAYBREAK_POOLS__ECHO__WORKLOAD="echo", DAYBREAK_HTTP__PORT="0")
    assert result.code == 0, result.out
    for line in ("✓ ray", "✓ redis", "✓ pool echo", "✓ files", "✓ port", "✓ gpus"):
        assert line in result.out
    assert "✗" not in result.out


def test_an_untested_ray_is_a_warning(
    daybreakd: Daybreakd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray works, so the exit code is 0. The line says why Daybreak does not use its own, faster way to start Ray."""
    info = tmp_path / "ray-2.99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.99.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = daybreakd("doctor", DAYBREAK_POOLS__ECHO__WORKLOAD="echo", DAYBREAK_HTTP__PORT="0")
    assert result.code == 0, result.out
    assert "! ray " in result.out
    assert "Ray 2.99.0 is installed" in result.out


def test_a_strategy_that_cannot_be_imported_is_an_error(tmp_path: Path) -> None:
    """The error names the pool, and the advice names the variable."""
    pool = {"workload": "simulated-speech", "sessions": {"strategy": "nowhere:Fast"}}
    check = report(tmp_path, pools={"speech": pool})["pool speech"]
    assert (check.level, check.found) == (
        "error",
        "the strategy 'nowhere:Fast' cannot be imported: No module named 'nowhere'",
    )
    assert check.advice == "correct DAYBREAK_POOLS__SPEECH__SESSIONS__STRATEGY"


def test_an_error_gives_exit_code_1(daybreakd: Daybreakd) -> None:
    """An error has a ✗ and a line that says what to do. The JSON output has the same error."""
    environ = {
        "DAYBREAK_POOLS__ECHO__WORKLOAD": "echo",
        "DAYBREAK_POOLS__ODD__WORKLOAD": "odd",
        "DAYBREAK_HTTP__PORT": "0",
    }
    result = daybreakd("doctor", **environ)
    assert result.code == 1
    lines = result.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("✗ pool odd"))
    assert "no workload 'odd' is installed; installed are: " in lines[at]
    assert lines[at + 1].strip() == "→ correct DAYBREAK_POOLS__ODD__WORKLOAD"
    assert lines[-1].startswith("1 error")
    checks = json.loads(daybreakd("doctor", "--json", **environ).out)
    assert [check["what"] for check in checks if check["level"] == "error"] == ["pool odd"]


def test_a_missing_or_empty_model_folder_is_an_error(tmp_path: Path) -> None:
    """The doctor reports such a folder before a group tries to load the model."""
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
    assert f"daybreakd models verify {tmp_path / 'empty'}" in checks["pool video"].advice
    assert checks["torch"].level == "ok"


def test_the_folder_of_a_speech_model_is_verified(tmp_path: Path) -> None:
    """A file of weights that was copied only in part is an error.

    For a pool without a folder, the doctor checks the built-in model.
    """
    folder = tmp_path / "speech"
    shutil.copytree(TINY, folder)
    weights = folder / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    pools = {
        "own": {"workload": "speech", "model": str(folder)},
        "gone": {"workload": "speech", "model": str(tmp_path / "none")},
        "tiny": {"workload": "speech"},
    }
    checks = report(tmp_path, pools=pools)
    own = checks["pool own"]
    assert own.level == "error"
    assert str(weights) in own.found
    assert own.advice == f"run `daybreakd models verify {folder}` for details"
    assert checks["pool gone"].found == f"there is no folder {tmp_path / 'none'}"
    tiny = checks["pool tiny"]
    assert tiny.level == "ok"
    assert "built-in speech translator: causal encoder" in tiny.found


def test_a_workload_class_that_cannot_be_imported_is_an_error(tmp_path: Path) -> None:
    """The API would accept tasks for such a pool, but no group could start."""
    check = report(tmp_path, pools={"odd": {"workload": "testkit.recording:ABSENT"}})["pool odd"]
    assert check.level == "error"
    assert "cannot import 'testkit.recording:NoSuchClass'" in check.found
    assert "testkit.recording:NoSuchClass" in check.advice


def test_the_failure_that_a_rank_reported_is_shown(tmp_path: Path, valkey: Server) -> None:
    """The doctor shows the first failure that a rank reported, because later failures only follow from it."""
    queue = RedisQueue(valkey.url, pool="echo")
    redis = {"url": valkey.url, "timeout_s": 30}
    assert "groups of echo" not in report(tmp_path, redis=redis)
    queue.report_failure(Cause(reason="RanksFail", message="UnknownWorkloadError: cannot import 'a.b:C'"))
    check = report(tmp_path, redis=redis)["groups of echo"]
    assert (check.level, check.found) == ("error", "UnknownWorkloadError: cannot import 'a.b:C'")
    queue.report_failure(Cause(reason="RanksFail", message="GroupBrokenError: rank 0 is gone"), rank=1)
    assert report(tmp_path, redis=redis)["groups of echo"].found == check.found, (
        "the first failure names the cause"
    )
    queue.close()


def test_the_blob_store_is_probed(tmp_path: Path) -> None:
    """The probe fails because a file has the name of the folder. The message comes from the blob store."""
    (tmp_path / "file").write_text("")
    files = report(tmp_path, artifacts={"url": (tmp_path / "file" / "below").as_uri()})["files"]
    assert files.level == "error"
    assert str(tmp_path / "file" / "below") in files.found
    assert files.advice == "a file or symbolic link has the name of a folder; remove it"
    assert report(tmp_path)["files"].level == "ok"
    assert os.listdir(tmp_path / "data" / "artifacts") == []


def test_a_port_in_use_is_a_warning(tmp_path: Path) -> None:
    """It is no error, because Daybreak itself may be using the port. An address of another machine is an error."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = report(tmp_path, http={"port": port})["port"]
    assert (taken.level, f"127.0.0.1:{port} is in use" in taken.found) == ("warning", True)
    assert "DAYBREAK_HTTP__PORT" in taken.advice
    assert report(tmp_path, http={"port": port})["port"].level == "ok"
    assert report(tmp_path, http={"host": "192.0.2.1", "port": port})["port"].level == "error"


def test_too_few_gpus_for_the_pools_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool with device ``cuda`` needs a GPU for each rank of each group. The check shows what nvidia-smi prints."""
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
    assert "nvidia-smi shows none" in report(tmp_path)["gpus"].found


def redis_report(tmp_path: Path, url: str) -> dict[str, Check]:
    checks = report(tmp_path, redis={"url": url, "timeout_s": 30})
    return {what: check for what, check in checks.items() if what.startswith("redis")}


def test_a_redis_without_problems_gives_four_checks(tmp_path: Path, valkey: Server) -> None:
    """The server has a current version, a memory limit, durable storage and a short round trip."""
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
def test_a_redis_option_that_could_lose_tasks_is_reported(
    tmp_path: Path, valkey: Server, option: str, value: str, what: str, level: str, words: str
) -> None:
    """For each setting of the server that could lose accepted tasks, the advice says how to change it."""
    with valkey.client() as client:
        before = client.config_get(option)
        client.config_set(option, value)
        try:
            check = redis_report(tmp_path, valkey.url)[what]
        finally:
            for name, previous in before.items():
                client.config_set(name, previous)
    assert check.level == level
    assert words in check.advice


def test_an_unreachable_redis_is_an_error(tmp_path: Path) -> None:
    """The error shows the address, without the password."""
    url = f"redis://:hunter2@127.0.0.1:{free_port()}"
    checks = redis_report(tmp_path, url)
    assert list(checks) == ["redis"]
    assert checks["redis"].level == "error"
    assert "redis://:***@127.0.0.1" in checks["redis"].found
    assert "hunter2" not in str(checks)
    assert "DAYBREAK_REDIS__URL" in checks["redis"].advice


def test_a_redis_that_refuses_the_password_is_an_error(tmp_path: Path, valkey: Server) -> None:
    """The error says that the user or the password is wrong, and names the setting to correct."""
    with valkey.client() as client:
        client.acl_setuser("daybreak", enabled=True, passwords=["+right"], keys=["*"], commands=["+@all"])
        try:
            checks = redis_report(tmp_path, valkey.url.replace("//", "//daybreak:wrong@"))
        finally:
            client.acl_deluser("daybreak")
    assert "refuses the user or the password" in checks["redis"].found
    assert checks["redis"].advice.startswith("correct the credentials in DAYBREAK_REDIS__URL")


def test_a_failover_that_could_lose_tasks_is_a_warning(tmp_path: Path) -> None:
    """If the master is lost, so are the tasks that no replica has. The advice names the setting that prevents this."""
    few = redis._failover(RedisFacts(replicas=0), 1)
    assert (few.level, few.found) == ("warning", "no replica is connected to the master")
    loses = redis._failover(RedisFacts(replicas=2), 0)
    assert (loses.level, "WAIT_REPLICAS" in loses.advice) == ("warning", True)
    assert redis._failover(RedisFacts(replicas=2), 1).level == "ok"


def test_unreachable_sentinels_are_warnings_and_an_unknown_master_is_an_error(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    redis = {"url": "redis://:pw@any/0", "sentinels": address, "sentinel_master": "mymaster"}
    checks = report(tmp_path, redis=redis)
    assert (checks["sentinel"].level, checks["sentinel"].found.startswith(address)) == ("warning", True)
    assert checks["redis"].advice.startswith("correct DAYBREAK_REDIS__SENTINEL_MASTER")


def test_an_old_or_distant_redis_is_reported() -> None:
    """The tests cannot start such servers, so this test passes their facts to the check."""
    old = redis.judge_redis(RedisFacts(product="redis", version="6.2.14", compatible=(6, 2)), "redis://old")
    assert [check.level for check in old] == ["error", "warning", "warning", "ok"]
    assert old[0].found == "redis 6.2.14 at redis://old is too old"
    far = redis.judge_redis(RedisFacts(compatible=(7, 0), ping_ms=80.0), "redis://far")
    assert (far[-1].level, far[-1].found) == ("warning", "80 ms")


def test_more_ranks_than_cpus_are_a_warning(tmp_path: Path) -> None:
    check = report(tmp_path, pools={"echo": {"workload": "echo", "ranks": 500}})["processors"]
    assert check.level == "warning"
    assert check.found.endswith("for 500 rank(s)")


def test_the_last_line_counts_the_problems() -> None:
    fine = Check(level="ok", what="a", found="b")
    odd = Check(level="warning", what="longer", found="c", advice="do")
    assert as_lines([fine]).splitlines() == ["✓ a  b", "", "no problems"]
    assert as_lines([fine, odd]).splitlines() == [
        "✓ a       b",
        "! longer  c",
        "          → do",
        "",
        "0 errors, 1 warning",
    ]
    assert not broken([fine, odd])


def test_each_operator_missing_from_the_cluster_is_an_error(tmp_path: Path) -> None:
    """The error says what the absence means and what to do."""
    bare = {check.what: check for check in cluster.judge(frozenset({"apps"}))}
    assert {what: check.level for what, check in bare.items()} == dict.fromkeys(bare, "error")
    assert "no group starts" in bare["KubeRay"].found
    assert "keda chart" in bare["KEDA"].advice
    complete = cluster.judge(frozenset({"ray.io", "keda.sh", "daybreak.dev"}))
    assert {check.level for check in complete} == {"ok"}


def test_kubernetes_is_checked_only_if_the_environment_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a laptop there is no check. In a pod without a service account, the check says that it could not run."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert list(cluster.examine(Settings())) == []
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")  # a pod without a service account
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    (check,) = cluster.examine(Settings())
    assert (check.level, "not checked" in check.found) == ("warning", True)


def test_a_model_on_an_unreachable_s3_server_is_an_error_of_its_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    check = report(
        tmp_path,
        pools={"echo": {"model": "s3://models/wan"}},
        artifacts={"s3": {"endpoint_url": f"http://127.0.0.1:{free_port()}"}},
    )["pool echo"]
    assert check.level == "error"
    assert check.found.startswith("model s3://models/wan at http://127.0.0.1:")
