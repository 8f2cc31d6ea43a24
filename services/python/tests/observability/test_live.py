"""While Prometheus watches a real run, every query of a panel has data, and every alert fires and resolves.

``testkit.observed`` starts the run. Alerts go through Alertmanager to a webhook. Queries and alerts that need
Kubernetes or a GPU are marked where they are defined (``no_data``, ``needs_kubernetes``), and are not tested here. The
run on a cluster and ``test_rules`` cover them.
"""

from __future__ import annotations

import contextlib
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from faults import FAULTS, Fault
from provoked import TIMEOUT_S, Fired, provoke_all
from queries import of_annotations, of_panels

from daybreak_server.observability import prometheus_rules
from testkit.observed import ObservedRun, observed_run
from testkit.prometheus import missing_programs
from testkit.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedRun]:
    missing = missing_programs()
    if missing:
        pytest.skip(f"{' and '.join(missing)} not on PATH; on Debian: apt-get install {' '.join(missing)}")
    with observed_run(tmp_path_factory.mktemp("o")) as run:
        run.play()
        yield run


@pytest.fixture(scope="module")
def provoked(run: ObservedRun) -> dict[str, Future[Fired]]:
    """The alerts that each fault has set off. When this fixture returns, all faults have ended."""
    return provoke_all(run, FAULTS)


def test_every_query_of_a_panel_has_data(run: ObservedRun) -> None:
    """The queries of the annotations that mark wakes and releases have data too. Queries with ``no_data`` are left out.

    On a busy machine, all requests of a pool may begin and end between two scrapes, and a query then has no data. In
    this case, the whole run is played again, at most twice.
    """
    queries = [query for query in (*of_panels(), *of_annotations()) if query.by != "mark Alerts"]
    needed = [query for query in queries if not query.no_data]
    left = list(needed)

    def all_have_data() -> bool:
        left[:] = [query for query in left if not run.watch.over(query.expression)]
        return not left

    for plays_left in (2, 1, 0):
        with contextlib.suppress(TimeoutError):
            wait_until(all_have_data, 20, "data of every query", pause_s=2)
        if not left or not plays_left:
            break
        run.play()
    assert [f"{query.by}: {query.expression}" for query in left] == []


def test_prometheus_evaluates_every_rule(run: ObservedRun) -> None:
    assert run.watch.unhealthy_rules() == []


def test_promtool_accepts_what_the_gateway_exports(run: ObservedRun) -> None:
    with urllib.request.urlopen(f"{run.system.url}/metrics", timeout=30) as response:
        exported = response.read()
    result = subprocess.run(
        ["promtool", "check", "metrics"], check=False, input=exported, capture_output=True
    )
    assert (result.returncode, result.stderr.decode()) == (0, "")


def test_every_alert_that_needs_no_kubernetes_has_a_fault() -> None:
    faults = [alert for fault in FAULTS for alert in fault.alerts]
    assert sorted(faults) == sorted(a.name for a in prometheus_rules.ALL if not a.needs_kubernetes)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_an_alert_fires_in_its_fault(provoked: dict[str, Future[Fired]], fault: Fault) -> None:
    fired = provoked[fault.name].result()
    for name in fault.alerts:
        annotations = fired.notifications[name]["annotations"]
        assert annotations["runbook_url"].endswith(f"#{name.lower()}")
        assert annotations["summary"].count("{{") == 0
        assert "/d/daybreak-" in annotations["dashboard_url"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_an_alert_resolves_after_its_fault(
    run: ObservedRun, provoked: dict[str, Future[Fired]], fault: Fault
) -> None:
    """Most alerts have already resolved while other faults were provoked, so this test rarely waits."""
    if provoked[fault.name].exception() is not None:
        pytest.skip("its alerts have not fired")
    before, received = provoked[fault.name].result().before, run.watch.notifications
    for name in fault.alerts:
        wait_until(
            lambda name=name: received.since(before, name, "resolved", pool=fault.pool),
            TIMEOUT_S,
            f"the end of {name}",
        )
