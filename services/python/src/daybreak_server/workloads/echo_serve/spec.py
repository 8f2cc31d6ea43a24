"""The spec of ``echo-serve``. Imports no torch."""

from __future__ import annotations

from daybreak_server.workloads.base import NoInput, WorkloadSpec

SPEC: WorkloadSpec[NoInput] = WorkloadSpec(
    name="echo-serve",
    kind="online",
    implementation="daybreak_server.workloads.echo_serve.workload:EchoServe",
    capacity=64,
)
