"""The tables of ``tools/reference.py``. Each table is generated from the code that defines its contents."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import generated_files
import openapi
from dashboards import ALL as DASHBOARDS
from dashboards.model import KUBERNETES
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from daybreak.wire.errors import ErrorCode
from daybreak_server.adapters import redis
from daybreak_server.adapters.redis import limits
from daybreak_server.adapters.redis.key_names import FAMILIES, SINGLE, Family, Key
from daybreak_server.adapters.redis.registry import keys as registry
from daybreak_server.adapters.redis.scripts import FRAGMENTS, SCRIPTS, lua_source
from daybreak_server.api.app import ROUTE_MODULES
from daybreak_server.domain import policy
from daybreak_server.domain.tasks import State
from daybreak_server.domain.transitions import TABLE
from daybreak_server.observability import catalogue, model_catalogue, prometheus_rules
from daybreak_server.observability.alerts import Severity
from daybreak_server.ports.metrics import Exporter, Metric, Source

RETRY_LATER = frozenset({429, 503})
"""HTTP statuses whose responses have the header ``Retry-After``."""
_TYPES = {"zset": "sorted set"}
NUMBERS: dict[str, int] = {**vars(policy), **vars(limits)}
ADAPTER = Path(redis.__file__).parent


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "|" + "|".join(f" {cell} " if cell != "---" else cell for cell in row) + "|" for row in lines
    )


def keys() -> str:
    """The Redis keys of a pool, from ``adapters/redis/key_names.py``: first the families, then the single keys."""
    return _keys(FAMILIES, SINGLE)


def registry_keys() -> str:
    """The Redis keys of the registry of workers and models, from ``adapters/redis/registry/keys.py``."""
    return _keys(registry.FAMILIES, registry.SINGLE)


def _keys(families: Mapping[str, Family], single: Mapping[str, Key]) -> str:
    named = [
        *((f"{family.before}<{family.member}>{family.after}", family.key) for family in families.values()),
        *single.items(),
    ]
    return markdown(("key", "type", "holds", "TTL"), (_key(name, key) for name, key in named))


def _key(name: str, key: Key) -> tuple[str, ...]:
    return f"`{name}`", _TYPES.get(key.type, key.type), key.holds, key.ttl or "–"


def scripts() -> str:
    """The scripts, from ``adapters/redis/scripts.py``, the comments of the Lua files and the Python that calls them."""
    rows = (
        (f"`{name}`", caller, _head(name), _flags(name), _calling_module(name))
        for name, caller in SCRIPTS.items()
    )
    return markdown(("script", "called by", "what it does", "flags", "Python"), rows)


def fragments() -> str:
    """The clock and the fragments that scripts share, in the order in which they are loaded."""
    return markdown(
        ("fragment", "what it is"),
        ((f"`_{name}.lua`", _first_sentence(_head(f"_{name}"))) for name in ("clock", *FRAGMENTS)),
    )


def _head(name: str) -> str:
    """The first comment of a Lua file, without its part about arguments and replies."""
    lines = lua_source(name).splitlines()
    comment = []
    for line in lines[lines[0].startswith("#!") :]:
        if not line.startswith("--"):
            break
        comment.append(line.removeprefix("--").strip())
    description = re.split(r" ?(?:ARGV:|Answers )", " ".join(comment))[0]
    return re.sub(r"\b[A-Z]+_[A-Z_]+\b", _number, description)


def _number(name: re.Match[str]) -> str:
    """The value of the constant that a match names, or the match itself if it is no constant."""
    return f"{NUMBERS[name[0]]:,}" if name[0] in NUMBERS else name[0]


def _flags(name: str) -> str:
    flags = lua_source(name).partition("\n")[0].partition("flags=")[2]
    return ", ".join(f"`{flag}`" for flag in flags.split(",") if flag) or "–"


def _calling_module(script: str) -> str:
    """The module that calls a script."""
    for path in sorted(ADAPTER.rglob("*.py"), key=lambda path: (path.parent == ADAPTER, path)):
        if f'Call("{script}"' in path.read_text(encoding="utf-8"):
            return f"[`{path.name}`](../{path.relative_to(generated_files.ROOT)})"
    raise SystemExit(f"no module below {ADAPTER} calls the script {script!r}")


def states() -> str:
    """The state table, from ``domain/transitions.py``. The first matching row decides."""
    rows = (
        (_states(row.sources), ", ".join(row.events), row.guard.description, row.target, row.effect)
        for row in TABLE
    )
    return markdown(("from", "event", "when", "to", "effect"), rows)


def _states(sources: frozenset[State | None]) -> str:
    return ", ".join(state for state in State if state in sources) or "–"


def errors() -> str:
    """All error codes, with their titles, from ``daybreak.wire.errors``."""
    rows = (
        (str(code.status), f"`{code}`", code.title, _retry(code)) for code in sorted(ErrorCode, key=_status)
    )
    return markdown(("status", "code", "title", "can be retried"), rows)


def statuses() -> str:
    """The error codes of each status."""
    codes: defaultdict[int, list[str]] = defaultdict(list)
    for code in ErrorCode:
        codes[code.status].append(f"`{code}`")
    return markdown(
        ("status", "codes"), ((str(status), ", ".join(codes[status])) for status in sorted(codes))
    )


def _status(code: ErrorCode) -> int:
    return code.status


def _retry(code: ErrorCode) -> str:
    return "yes, after `Retry-After`" if code.status in RETRY_LATER else "no"


def routes() -> str:
    """The routes, from the app itself. Each can also respond with 500 ``internal``."""
    head = ("method", "path", "what it returns (GET) or does", "status on success", "error codes")
    app = openapi.app()
    ctx = app.state.context
    module_routes = [route for module in ROUTE_MODULES for route in module.router(ctx).routes]
    all_routes = [*module_routes, *(route for route in app.routes if isinstance(route, APIRoute))]
    return markdown(head, sorted(_routes(all_routes), key=lambda row: (row[1].strip("`"), row[0])))


def _routes(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, ...]]:
    for route in routes:
        path, methods = getattr(route, "path", ""), getattr(route, "methods", None)
        if (":path}" in path and not getattr(route, "include_in_schema", False)) or methods == {"HEAD"}:
            continue
        path = path.replace(":path}", "}")
        method = "WebSocket" if methods is None else ", ".join(sorted(methods - {"HEAD"}))
        yield method, f"`{path}`", _first_sentence(_doc(route)), *_answers(route)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.) ", " ".join(text.split()))[0]


def _doc(route: BaseRoute) -> str:
    return getattr(route, "endpoint", None).__doc__ or ""


def _answers(route: BaseRoute) -> tuple[str, str]:
    statuses: dict[Any, Any] = getattr(route, "responses", {})
    good = ", ".join(str(status) for status in statuses if int(status) < 400)
    extra = getattr(route, "openapi_extra", None) or {}
    return good or "–", ", ".join(f"`{code}`" for code in extra.get("x-problems", ())) or "–"


def metrics_of(exporter: Exporter, source: Source) -> str:
    """The metrics of one kind of process, from ``observability/catalogue.py``, without those of models."""
    return _metrics(
        metric for metric in catalogue.exported_by(exporter, source) if metric not in model_catalogue.ALL
    )


def metrics_of_models() -> str:
    """The metrics of models on workers, from ``observability/model_catalogue.py``."""
    return _metrics(model_catalogue.ALL)


def _metrics(metrics: Iterable[Metric]) -> str:
    rows = (
        (
            f"`{metric.name}`",
            metric.type.value,
            ", ".join(f"`{label}`" for label in metric.labels) or "–",
            metric.help,
        )
        for metric in metrics
    )
    return markdown(("metric", "type", "labels", "what it is"), rows)


def alerts() -> str:
    """The alerts, the most severe first."""
    order = list(Severity)
    rows = (
        (f"[{alert.name}](#{alert.anchor})", alert.severity.value, alert.when)
        for alert in sorted(prometheus_rules.ALL, key=lambda alert: order.index(alert.severity))
    )
    return markdown(("alert", "severity", "it fires when"), rows)


def dashboards() -> str:
    """The dashboards, from tools/dashboards."""
    rows = ((f"*{d.title.removeprefix('Daybreak / ')}*", d.description, f"`{d.uid}`") for d in DASHBOARDS)
    return markdown(("dashboard", "what it answers", "uid"), rows)


def unproven() -> str:
    """The queries of panels that have no data in any test, neither on one machine nor in a cluster."""
    rows = (
        (f"*{d.title.removeprefix('Daybreak / ')}*", f"*{panel.title}*", query.no_data)
        for d in DASHBOARDS
        for panel in d.panels
        for query in panel.queries
        if query.no_data not in ("", KUBERNETES)
    )
    return markdown(("dashboard", "panel", "why"), rows)


BLOCKS = {
    "alerts": alerts,
    "dashboards": dashboards,
    "fragments": fragments,
    "keys": keys,
    "registry-keys": registry_keys,
    "metrics-gateway": partial(metrics_of, Exporter.GATEWAY, Source.PROCESS),
    "metrics-models": metrics_of_models,
    "metrics-operator": partial(metrics_of, Exporter.OPERATOR, Source.PROCESS),
    "metrics-pools": partial(metrics_of, Exporter.GATEWAY, Source.REDIS),
    "metrics-rank": partial(metrics_of, Exporter.RANK, Source.PROCESS),
    "routes": routes,
    "scripts": scripts,
    "states": states,
    "statuses": statuses,
    "unproven": unproven,
}
"""The tables within pages, by the name that the page uses."""
