"""The plain manifests serve a task in the namespace that they create. The test changes only the names of the images."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.client.exceptions import ApiException

from daybreak import Client, Retry
from testkit.kubernetes.deployment import GATEWAY_PORT, WAKE_S
from testkit.kubernetes.forward import PortForward
from testkit.kubernetes.kube import Kube
from testkit.kubernetes.release import NAME
from testkit.kubernetes.task_timeline import TaskTimeline
from testkit.kubernetes.values import Images
from testkit.kubernetes.watcher import Watcher

pytestmark = pytest.mark.full

DEPLOY = Path(__file__).parents[1] / "deploy"
INPUT = {"prompt": "a green square moving right", "steps": 4, "seed": 3}


@pytest.fixture
def kube() -> Iterator[Kube]:
    """The manifests' namespace, which must not exist yet and is deleted at the end."""
    namespace = Kube(NAME)
    try:
        namespace.core.read_namespace(NAME)
    except ApiException:
        pass
    else:
        pytest.skip(f"namespace {NAME} exists already, and may be in use")
    watcher = Watcher(namespace).start()
    try:
        yield namespace
    finally:
        watcher.close()
        namespace.delete_namespace()


@pytest.mark.parametrize("folder", ["keda", "raycluster"])
def test_the_plain_manifests_serve_a_task(kube: Kube, folder: str, request: pytest.FixtureRequest) -> None:
    """Apply the namespace, the CRD, the S3 server of deploy/s3 and then ``folder``, and let a task make a video."""
    option = request.config.getoption
    images = Images(daybreak=option("--image"), s3=option("--s3-image"))
    for part in (DEPLOY / folder / "00-namespace.yaml", DEPLOY / "crd", DEPLOY / "s3", DEPLOY / folder):
        if part.name == "s3":
            _run("sh", str(DEPLOY / "secrets.sh"), NAME)
        for file in sorted(part.glob("*.yaml")) if part.is_dir() else [part]:
            text = file.read_text(encoding="utf-8")
            text = text.replace("ghcr.io/versity/versitygw:v1.8.0", images.s3)
            text = text.replace("daybreak:dev", images.daybreak)
            _run("kubectl", "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    for workload in (f"statefulset/{NAME}-redis", f"deployment/{NAME}-gateway"):
        _run("kubectl", "-n", NAME, "rollout", "status", workload, "--timeout=240s")
    forward = PortForward(NAME, f"{NAME}-gateway", GATEWAY_PORT).open()
    try:
        with Client(forward.url, retry=Retry(attempts=12)) as client:
            done = TaskTimeline(client, client.submit("video", INPUT)).wait_for_end(timeout_s=WAKE_S)
    finally:
        forward.close()
    assert (done.state.value, done.attempt) == ("succeeded", 1)
    assert "video.mp4" in {artifact.name for artifact in done.artifacts}


def _run(*command: str, stdin: str | None = None) -> None:
    result = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr or result.stdout}"
