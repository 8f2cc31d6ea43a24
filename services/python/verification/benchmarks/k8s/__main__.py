"""``python -m verification.benchmarks.k8s [--quick] [--part PART] [--image IMAGE]`` measures Daybreak on Kubernetes.

Without ``--quick`` it writes ``docs/figures/k8s*.json``. Like the end-to-end tests, it needs `helm`, `kubectl`, and a
cluster with KubeRay and KEDA. The nodes of the cluster must already have the image. The program creates a namespace,
and deletes it at the end.
"""

from __future__ import annotations

import argparse
import sys
import time

from testkit.kubernetes.deployment import Deployment
from testkit.kubernetes.values import Images
from testkit.log import log
from verification.benchmarks.k8s import hosts, rows
from verification.benchmarks.k8s.baselines import Baselines
from verification.benchmarks.k8s.timeline import PAUSE_S, burst, idle_calls_an_hour, latencies, run_cycle
from verification.results import FOLDER, Report

ABOUT = (
    "The chart is installed on a real single-node cluster, with CPU ranks and the tiny model. A group of pool "
    "`video` has two hosts. Kubernetes and Daybreak share the machine's cores. The baselines are measured in the "
    "same run, with the same image: a bare pod (with the pod template of the groups, without Daybreak), Ray's own "
    "`ray start` in it, and a plain process that loads the model. *Warm head* means that the Ray head keeps "
    "running while the pool has no group. A wake with a warm head and a run of its baseline take turns. Each wake "
    "and each run starts after 15 s of rest."
)


def main() -> int:
    """Measure the selected tables, each with its own installation; print and save them. Missed targets do not change
    the exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.k8s", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="measure once, with bursts of 100 tasks; save nothing"
    )
    parser.add_argument("--part", choices=["pools", "hosts"], help="measure only this table (default: both)")
    parser.add_argument("--image", default="daybreak:dev")
    parser.add_argument("--s3-image", default="docker.io/test-cluster/versitygw:1")
    options = parser.parse_args()
    for part in [options.part] if options.part else ["pools", "hosts"]:
        deployment = Deployment(Images(daybreak=options.image, s3=options.s3_image))
        report = _run(deployment, part, quick=options.quick)
        log(f"\n{report.table()}")
        if not options.quick:
            log(f"saved {report.save(FOLDER)}")
    return 0


def _run(deployment: Deployment, part: str, *, quick: bool) -> Report:
    if part == "hosts":
        hosts.configure(deployment)
    try:
        deployment.open()
        if part == "hosts":
            report = Report(name="k8s-hosts", title="A group of two hosts on Kubernetes", about=hosts.ABOUT)
            hosts.measure(deployment, report, times=1 if quick else 3)
        else:
            report = Report(name="k8s", title="On Kubernetes", about=ABOUT)
            times, tasks, rest_s = (1, 100, 60) if quick else (7, 1000, 300)
            measure(deployment, report, times=times, tasks=tasks, rest_s=rest_s)
    finally:
        deployment.close()
    return report


def measure(deployment: Deployment, report: Report, *, times: int, tasks: int, rest_s: float) -> None:
    """Measure all rows, those of an idle system first."""
    deployment.wait_for_zero("echo", head=True)
    deployment.wait_for_zero("video", head=False)
    calls_an_hour = idle_calls_an_hour(deployment, rest_s)
    at_zero = latencies(deployment, "echo", 20)
    deployment.assert_tasks_ended()
    baselines = Baselines(deployment)
    baselines.capture("echo")
    warm = latencies(deployment, "echo", 20)
    deployment.assert_tasks_ended()
    cold = run_cycle(deployment, "video", while_idle=lambda: baselines.capture("video"))
    baselines.load("video")
    cycles = []
    for _ in range(times):
        # Baselines and cycles alternate, each after the same rest, so that other load affects both in the same way.
        deployment.wait_for_zero("echo", head=True)
        time.sleep(PAUSE_S)
        baselines.join("echo")
        time.sleep(PAUSE_S)
        cycles.append(run_cycle(deployment, "echo"))
    deployment.wait_for_zero("echo", head=True)
    from_zero = burst(deployment, "echo", tasks)
    running = burst(deployment, "echo", tasks)
    deployment.wait_for_zero("echo", head=True)
    for row in (
        rows.post(at_zero, warm),
        *rows.wakes("Pool `echo`, warm head", cycles, baselines),
        *rows.wakes("Pool `video`, no pods", [cold], None),
        *rows.baselines(baselines),
        rows.down(cycles),
        rows.bursts(tasks, from_zero, running, wake_s=min(cycle.formed_s for cycle in cycles)),
        rows.calls(calls_an_hour),
    ):
        report.add(row)


if __name__ == "__main__":
    sys.exit(main())
