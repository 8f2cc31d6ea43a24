"""Fixtures and options of the end-to-end tests. Most tests share one installation of Daybreak.

After a failed test, the folder build/e2e/<test>/ has the logs, Events, objects and API responses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.failure_bundle import collect
from e2e.skips import ALLOWED
from testkit.kubernetes.deployment import Deployment
from testkit.kubernetes.image_watch import MissingImageError
from testkit.kubernetes.release import CHART
from testkit.kubernetes.values import ENGINE, REDIS, Images
from testkit.log import elapsed_s, log

OUT = Path(__file__).parents[1] / "build" / "e2e"
CORE_S = 900
"""How long the core tests should take, from the first import until their namespace is gone. A slow or busy machine
needs longer, so a run that takes longer does not fail."""
_deployments = pytest.StashKey[list[Deployment]]()
_skipped = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that select the images, the namespace, and the versions between which to upgrade."""
    parser.addoption("--image", default="daybreak:dev", help="Daybreak's image, as the nodes know it.")
    parser.addoption(
        "--s3-image", default="docker.io/test-cluster/versitygw:1", help="The image of versitygw."
    )
    parser.addoption(
        "--redis-image", default=REDIS, help="The image of Redis. The backup tests need one with a shell."
    )
    parser.addoption("--engine-image", default=ENGINE, help="The image of llama.cpp with a small model.")
    parser.addoption("--next-image", help="A second image of Daybreak to upgrade to.")
    parser.addoption("--previous-image", help="The image of an older commit to upgrade from.")
    parser.addoption("--previous-chart", type=Path, help="The folder of that commit's chart.")
    parser.addoption("--namespace", help="The namespace of the installation. Default: daybreak-e2e-<random>.")
    parser.addoption("--keep", action="store_true", help="Keep the namespace when the run ends.")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the lists of running installations and of skipped tests."""
    config.stash[_deployments] = []
    config.stash[_skipped] = []


@pytest.fixture(scope="session")
def install_daybreak(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[Deployment]]:
    """A context manager that installs Daybreak with the chart in its own namespace, and removes it at the end.

    ``daybreak`` (an image) and ``chart`` (a folder) select another version than that of this tree.
    """
    config = request.config
    option = config.getoption
    images = Images(
        daybreak=option("--image"),
        s3=option("--s3-image"),
        redis=option("--redis-image"),
        engine=option("--engine-image"),
    )

    @contextmanager
    def install(
        namespace: str | None = None, *, daybreak: str = images.daybreak, chart: Path = CHART
    ) -> Iterator[Deployment]:
        deployment = Deployment(replace(images, daybreak=daybreak), namespace=namespace, chart=chart)
        config.stash[_deployments].append(deployment)
        try:
            deployment.open()
            yield deployment
        finally:
            deployment.close(keep=option("--keep"))
            config.stash[_deployments].remove(deployment)

    return install


@pytest.fixture(scope="session")
def deployment(
    request: pytest.FixtureRequest, install_daybreak: Callable[..., AbstractContextManager[Deployment]]
) -> Iterator[Deployment]:
    """The installation that most tests share. If its images are missing, the run ends at once."""
    with ExitStack() as stack:
        try:
            shared = stack.enter_context(install_daybreak(request.config.getoption("--namespace")))
        except MissingImageError as exc:
            pytest.exit(f"e2e cannot run: {exc}", returncode=2)
        yield shared


@pytest.fixture(autouse=True)
def _log_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Log which test runs and what it proves. If the test passes, check that no task is lost or stuck."""
    doc = " ".join((request.function.__doc__ or "").split())
    log(f"── {request.node.name}: {doc}")
    yield
    failed = request.node.stash.get(_failed, False)
    for deployment in request.config.stash[_deployments]:
        if not failed and hasattr(deployment, "client"):
            deployment.assert_tasks_ended()


_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Log how each test ended. After a failure, also save the state of the running installations."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
        folder = OUT / re.sub(r"[^\w.-]+", "-", item.name)
        deployments = item.config.stash[_deployments]
        for deployment in deployments:
            target = folder if len(deployments) == 1 else folder / deployment.kube.namespace
            collect(deployment.kube, getattr(deployment, "client", None), target)
        log(f"FAILED {item.name} ({report.when}): see {folder}")
    elif report.skipped:
        item.config.stash[_skipped].append(item.name.partition("[")[0])
    elif report.when == "call":
        log(f"passed {item.name} in {report.duration:.0f} s")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a skipped test is not listed in e2e/skips.py. Print how long the run took."""
    unexpected = [name for name in session.config.stash[_skipped] if name not in ALLOWED]
    if unexpected:
        log(f"FAILED: skipped but not listed in e2e/skips.py: {', '.join(unexpected)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    core, total_s = session.config.option.markexpr == "core", elapsed_s()
    log(
        f"core: {total_s:.0f} s (on two free processors at most {CORE_S} s)"
        if core
        else f"total: {total_s:.0f} s"
    )
