"""A pytest plugin: one line at the end of a run says which tests were skipped for want of what, and how to get it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class Need:
    """Something that only some machines have."""

    name: str
    reason: re.Pattern[str]
    """What tests give as their reason when it is absent."""
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
    _need("FUSE", r"\bFUSE\b|/dev/fuse", "apt-get install libfuse2, and /dev/fuse"),
    _need("a C compiler", r"C compiler", "apt-get install gcc"),
    _need("a GPU", r"no CUDA device", "make gpu on a machine that has one"),
    _need("rivals", r"benchmarks\.rivals", "python -m verification.benchmarks.competitors"),
    _need("the tiny model", r"make train-tiny", "make train-tiny"),
)


def summary(reasons: list[str]) -> str:
    """The line, of the reasons of all skipped tests; empty where none was skipped."""
    if not reasons:
        return ""
    found = Counter(next((one for one in NEEDS if one.reason.search(reason)), None) for reason in reasons)
    other = found.pop(None, 0)
    parts = [f"{count} want {one.name} ({one.how})" for one, count in found.most_common() if one is not None]
    parts += [f"{other} for reasons of their own"] * bool(other)
    return f"{len(reasons)} tests were skipped: {'; '.join(parts)}."


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.stats.get("skipped", [])
    if line := summary([_reason(one) for one in reports]):
        terminalreporter.line(line)


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple | list) else report.longrepr)
