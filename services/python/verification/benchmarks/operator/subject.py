"""Runs the real operator as a process. Its requests to Ray's heads go to the benchmark's own server."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from prometheus_client.parser import text_string_to_metric_families

from daybreak_server.entrypoints.operator import run_operator
from daybreak_server.settings.tree import OperatorSettings, RedisSettings, Settings

CALLS = "daybreak_operator_kubernetes_calls_total"
ACTIONS = "daybreak_operator_actions_total"
RECONCILED = "daybreak_operator_last_plan_timestamp_seconds"


class Operator:
    """An operator that runs until ``stop``. It logs to the file ``log``."""

    def __init__(self, *, namespace: str, redis: str, heads: str, port: int, log: Path) -> None:
        self._port = port
        self._out: IO[bytes] = log.open("ab")
        arguments = [namespace, redis, heads, str(port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "verification.benchmarks.operator.subject", *arguments],
            stdout=self._out,
            stderr=self._out,
        )
        self.began = time.time()

    def metrics(self) -> dict[str, list[float]]:
        """The values of all samples, by the names of the samples. Empty while the operator does not answer.

        :raises RuntimeError: if the process has ended.
        """
        if self._process.poll() is not None:
            raise RuntimeError(
                f"the operator ended with exit code {self._process.returncode}; see {self._out.name}"
            )
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, OSError):
            return {}
        values: dict[str, list[float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values.setdefault(sample.name, []).append(sample.value)
        return values

    @property
    def memory_mib(self) -> float:
        """The operator's resident memory now."""
        return self.metrics()["process_resident_memory_bytes"][0] / 2**20

    @property
    def peak_memory_mib(self) -> float:
        """The largest resident memory that the operator has had."""
        return peak_memory_mib(self._process.pid)

    @property
    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        return self.metrics()["process_cpu_seconds_total"][0]

    @property
    def calls(self) -> float:
        """Calls to the Kubernetes API so far, without watches."""
        return sum(self.metrics().get(CALLS, []))

    def stop(self) -> None:
        """Stop the operator with SIGTERM, as Kubernetes does."""
        self._process.terminate()
        self._process.wait(60)
        self._out.close()


def peak_memory_mib(pid: int) -> float:
    """The largest resident memory that a process has had, as Linux counts it."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def main() -> int:
    """Run the operator. The command line has its namespace, Redis's URL, the URL of the heads, and the metrics port.

    :returns: the operator's exit code.
    """
    namespace, redis, heads, port = sys.argv[1:]
    settings = Settings(
        redis=RedisSettings(url=redis),
        operator=OperatorSettings(
            namespace=namespace, host="127.0.0.1", metrics_port=int(port), liveness_port=0
        ),
    )
    return run_operator(settings, heads=lambda _namespace: lambda cluster: f"{heads}/{cluster.name}")


if __name__ == "__main__":
    sys.exit(main())
