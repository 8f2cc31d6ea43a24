"""The benchmark of routers runs from end to end with tiny numbers; no timing is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from verification.benchmarks.http.parts import Cores
from verification.benchmarks.routing import client, measure, table
from verification.benchmarks.routing.bed import bed
from verification.benchmarks.routing.contenders import CONTENDERS, DAYBREAK, Contender
from verification.results import Row

MEASURES = (
    "1 client: added p50",
    "1 client: added p99",
    "4 clients: added p50",
    "4 clients: added p99",
    "Requests a second and core",
    "Streamed tokens a second and core",
    "Growth of memory over 1,000 requests",
)


@pytest.mark.system
@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_every_row_of_a_router_is_measured(contender: Contender, tmp_path: Path) -> None:
    """Each router runs as a real process, and its answers come from the back ends."""
    if not contender.installed:
        pytest.skip(f"{contender.name} is not installed: run python -m verification.benchmarks.routing")
    figures = measure.Figures()
    with bed(Cores.here()) as testbed:
        measure.speed(testbed, [contender], measure.QUICK, figures)
        measure.memory(testbed, [contender], measure.QUICK, figures)
    rows = table.rows(figures, measure.QUICK)
    shown = [row.what for row in rows if not row.detail]
    assert shown == [f"{what}, {contender.name}" for what in MEASURES]
    assert all(row.value > 0 for row in rows if "a second" in row.what)
    report = table.report(measure.QUICK, {}, "all")
    report.rows = table.merged(rows[:1], rows)
    assert [row.what for row in report.rows] == [row.what for row in rows]
    assert report.save(tmp_path).exists()


def test_an_answer_that_is_not_the_back_ends_ends_the_round() -> None:
    """An answer from the router itself, such as an error, ends the round. Otherwise errors would count as answers."""
    with bed(Cores.here()) as testbed, testbed.router(DAYBREAK) as router:
        elsewhere = client.render("/v1/pools/nothing/serve/x", client.chat(tokens=1))
        for streamed in (False, True):
            with pytest.raises(RuntimeError, match="unexpected answer"):
                client.call(router.port, elsewhere, clients=2, seconds=5.0, streamed=streamed)


def test_the_rows_compare_with_the_rival() -> None:
    """Daybreak's rows say whether it meets two targets: a limit on the added p99, and a multiple of the rival's rate
    for each core."""

    def rounds(p99_ms: float, cpu_us: float) -> list[measure.Round]:
        return [
            measure.Round(
                p50_ms=p99_ms / 2, p99_ms=p99_ms, rate=100.0, cpu_us=cpu_us, router_busy=1.0, client_busy=0.1
            )
        ]

    def found(daybreak: tuple[float, float], rival: tuple[float, float]) -> dict[str, Row]:
        by_name = {"no router": rounds(0.5, 10.0), "Daybreak": rounds(*daybreak), "LiteLLM": rounds(*rival)}
        figures = measure.Figures(latency={16: by_name}, saturated=by_name, streams=by_name)
        return {row.what: row for row in table.rows(figures, measure.FULL)}

    near = found((3.4, 100.0), (9.0, 310.0))
    assert near["16 clients: added p99, Daybreak"].value == 2.9
    assert near["16 clients: added p99, Daybreak"].held
    assert near["Requests a second and core, Daybreak"].held
    far = found((3.6, 100.0), (9.0, 290.0))
    assert far["16 clients: added p99, Daybreak"].held is False
    assert far["Requests a second and core, Daybreak"].held is False
