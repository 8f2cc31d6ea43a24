"""One installation for most of a run; after a failure everything about it is kept in build/e2e/<test>/."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.failure_bundle import collect
from e2e.images import MissingImageError
from e2e.skips import ALLOWED
from testkit.kubernetes.deployment import House
from testkit.kubernetes.release import CHART
from testkit.kubernetes.values import REDIS, Images
from testkit.log import passed_s, say

OUT = Path(__file__).parents[1] / "build" / "e2e"
CORE_S = 720
"""What the core may take, from the first import to the end of its namespace; in CI more fails it."""
_houses = pytest.StashKey[list[House]]()
_skipped = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--image", default="daybreak:dev", help="Daybreak's image, as the nodes know it.")
    parser.addoption("--s3-image", default="docker.io/test-cluster/versitygw:1", help="versitygw's image.")
    parser.addoption("--redis-image", default=REDIS, help="Redis's; a backup wants one with a shell.")
    parser.addoption("--next-image", help="Another image of Daybreak, to upgrade to.")
    parser.addoption("--previous-image", help="The image of an older commit, to upgrade from.")
    parser.addoption("--previous-chart", type=Path, help="The folder of its chart.")
    parser.addoption("--namespace", help="Of the installation; absent: daybreak-e2e-<random>.")
    parser.addoption("--keep", action="store_true", help="Leave the namespace when the run ends.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_houses] = []
    config.stash[_skipped] = []


@pytest.fixture(scope="session")
def open_house(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[House]]:
    """Installs Daybreak by the chart from nothing, in a namespace of its own, until the context ends.

    ``daybreak`` and ``chart``: of another version than this tree's.
    """
    config = request.config
    option = config.getoption
    images = Images(daybreak=option("--image"), s3=option("--s3-image"), redis=option("--redis-image"))

    @contextmanager
    def open_one(
        namespace: str | None = None, *, daybreak: str = images.daybreak, chart: Path = CHART
    ) -> Iterator[House]:
        made = House(replace(images, daybreak=daybreak), namespace=namespace, chart=chart)
        config.stash[_houses].append(made)
        try:
            made.open()
            yield made
        finally:
            made.close(keep=option("--keep"))
            config.stash[_houses].remove(made)

    return open_one


@pytest.fixture(scope="session")
def house(
    request: pytest.FixtureRequest, open_house: Callable[..., AbstractContextManager[House]]
) -> Iterator[House]:
    """The installation that most tests share. Without its images there is nothing to test: the run ends at once."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(open_house(request.config.getoption("--namespace")))
        except MissingImageError as exc:
            pytest.exit(f"e2e cannot run: {exc}", returncode=2)
        yield made


@pytest.fixture(autouse=True)
def _told(request: pytest.FixtureRequest) -> Iterator[None]:
    """Say which test runs and what it proves; when it has passed, no task may be lost or stuck."""
    doc = " ".join((request.function.__doc__ or "").split())
    say(f"── {request.node.name}: {doc}")
    yield
    failed = request.node.stash.get(_failed, False)
    for one in request.config.stash[_houses]:
        if not failed and hasattr(one, "client"):
            one.settle()


_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
        folder = OUT / re.sub(r"[^\w.-]+", "-", item.name)
        houses = item.config.stash[_houses]
        for one in houses:
            place = folder if len(houses) == 1 else folder / one.kube.namespace
            collect(one.kube, getattr(one, "client", None), place)
        say(f"FAILED {item.name} ({report.when}): records are in {folder}")
    elif report.skipped:
        item.config.stash[_skipped].append(item.name)
    elif report.when == "call":
        say(f"passed {item.name} in {report.duration:.0f} s")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Skips are counted: one that is not listed fails the run. So does, in CI, a core that took too long."""
    odd = [name for name in session.config.stash[_skipped] if name not in ALLOWED]
    if odd:
        say(f"FAILED: skipped, and not listed in e2e/skips.py: {', '.join(odd)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    core, took = session.config.option.markexpr == "core", passed_s()
    say(f"core: {took:.0f} s of at most {CORE_S}" if core else f"in all: {took:.0f} s")
    if core and took > CORE_S and os.environ.get("CI"):
        say(f"FAILED: the core took longer than {CORE_S} s")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
