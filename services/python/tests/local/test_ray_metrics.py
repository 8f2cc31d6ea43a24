"""A process in Ray exports its metrics through Ray, under the declared names with Ray's prefix."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from daybreak_server.local.free_ports import free_port

PROGRAM = """
import sys, time, urllib.request
import ray
from daybreak_server.adapters.ray.ray_meter import RayMeter
from daybreak_server.engines.common.rank_metrics import RankMetrics
from daybreak_server.domain.tasks import Finished
from daybreak_server.observability.gateway_metrics import GatewayMetrics

port = int(sys.argv[2])
# Keep Ray's default report interval. With a shorter one, OpenTelemetry discards counts that a busy machine collects
# too late.
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False,
    _temp_dir=sys.argv[1], _metrics_export_port=port)

@ray.remote
class Rank:
    def work(self):
        metrics = RankMetrics(RayMeter(), pool="video")
        metrics.begin_attempt()
        metrics.step("denoise")
        metrics.script_called("report", 0.002, True)
        metrics.end_attempt(Finished(artifacts=()))
        metrics.ages(2.0, lease_s=3.0)
        gateway = GatewayMetrics(RayMeter())
        gateway.observe_request("/v1/tasks", "POST", 202, "none", 0.01)
        gateway.stream_opened("sse")
        assert b"daybreak_redis_up" in gateway.render()

rank = Rank.remote()
ray.get(rank.work.remote())
# Ray drops a gauge that was not set for two report intervals, 20 s. So after 25 s, Ray exports a gauge only if the
# meter has set it again.
time.sleep(25)
wanted = sys.argv[3:]
text, until = "", time.monotonic() + 60
while time.monotonic() < until and not all(name in text for name in wanted):
    time.sleep(0.2)
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    except OSError:
        pass
print("\\n".join(line for line in text.splitlines() if "daybreak" in line and not line.startswith("#")))
ray.shutdown()
"""
WANTED = (
    "ray_daybreak_rank_step_seconds_bucket{",
    "ray_daybreak_rank_attempts_total{",
    "ray_daybreak_rank_script_seconds_bucket{",
    "ray_daybreak_rank_heartbeat_age_seconds{",
    "ray_daybreak_http_requests_total{",
    "ray_daybreak_http_request_seconds_count{",
    "ray_daybreak_stream_subscribers{",
)


@pytest.mark.system
def test_metrics_of_a_rank_and_of_the_api_are_exported_by_ray(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Names of counters have one `_total`. Labels arrive as declared. Outcomes that did not occur have the count 0."""
    folder = Path(tmp_path_factory.mktemp("r"))
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(free_port()), *WANTED],
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
        cwd=Path(__file__).parents[2],  # where `testkit` is
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    lines = ran.stdout.splitlines()
    for name in WANTED:
        assert any(line.startswith(name) for line in lines), (name, ran.stdout[-3000:])
    attempts = [line for line in lines if line.startswith("ray_daybreak_rank_attempts_total")]
    assert all('pool="video"' in line for line in attempts)
    counts = {re.search(r'outcome="(\w+)"', line)[1]: line.split()[-1] for line in attempts}
    others = dict.fromkeys(("failed", "released", "stopped", "broken", "lost"), "0.0")
    assert counts == {"finished": "1.0", **others}
    assert not any("_total_total" in line for line in lines)
