"""PromQL of dashboards and alerts, written without the namespace and the pool to which it will apply.

``HERE`` between the braces of a selector stands for the matchers of the namespace, and ``POOL`` for those of the
namespace and the pool. If there are no matchers, the marker is removed.
"""

from __future__ import annotations

import re

_MARK = re.compile(r"\b(?P<mark>HERE|POOL)\b(?P<comma>,\s*)?")
_WINDOW = re.compile(r"\[(?P<number>\d+)(?P<unit>[smhd])(?P<rest>[^\]]*)\]")
SHORTEST_S = 6
"""The shortest window of a shortened alert: the time in which a test's Prometheus scrapes Ray three times."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NAME = re.compile(r"(?<![\w:$\"./-])(?P<name>(?:daybreak|ray|keda|kuberay)_\w+|up|ALERTS)(?=\s*[{\[)]|\s|$)")


def grown(metric: str, window: str, *labels: str, matchers: str = "HERE") -> str:
    """An expression for the growth of a total in Redis within ``window``, by namespace, pool and ``labels``.

    Every gateway exports these totals with the same values. ``increase`` looks at the series of each gateway
    separately, so after a rollout it misses what happened before the oldest running gateway started. Therefore
    this expression takes the difference between the highest and the lowest value of all gateways. Whole numbers
    stay whole.

    A total falls only if Redis loses data, for example because an older backup is restored. (The total of a tenant also
    starts again at 0 if the tenant returns after all its tasks have been deleted.) For the length of ``window`` after
    a fall, the result is too high.
    """
    by = ", ".join(("namespace", "pool", *labels))
    series = f"{metric}{{{matchers}}}[{window}]"
    return f"(max by ({by}) (max_over_time({series})) - min by ({by}) (min_over_time({series})))"


def scoped(expression: str, *, here: str, pool: str = "") -> str:
    """The expression with its markers replaced by the matchers ``here`` and ``pool`` (default: ``here``)."""

    def fill(match: re.Match[str]) -> str:
        matchers = here if match["mark"] == "HERE" else (pool or here)
        return matchers + (match["comma"] or "") if matchers else ""

    return _MARK.sub(fill, expression)


def shortened(expression: str, factor: float) -> str:
    """The expression with each window (``[5m]``) divided by ``factor``, in whole seconds, at least :data:`SHORTEST_S`.

    So in a test, even an alert whose window is an hour fires within seconds.
    """

    def shorten(match: re.Match[str]) -> str:
        seconds = int(match["number"]) * _SECONDS[match["unit"]] / factor
        return f"[{max(SHORTEST_S, round(seconds))}s{match['rest']}]"

    return _WINDOW.sub(shorten, expression) if factor != 1 else expression


def seconds(duration: str) -> float:
    """The seconds of a duration such as ``15m``. :raises ValueError: if it is not a duration."""
    unit = duration[-1:]
    if unit not in _SECONDS or not duration[:-1].isdigit():
        raise ValueError(f"{duration!r} is not a duration such as 30s, 15m or 6h")
    return int(duration[:-1]) * _SECONDS[unit]


def metric_names(expression: str) -> frozenset[str]:
    """The metrics of Daybreak, Ray, KEDA, KubeRay and Prometheus itself that an expression reads."""
    return frozenset(match["name"] for match in _NAME.finditer(expression))
