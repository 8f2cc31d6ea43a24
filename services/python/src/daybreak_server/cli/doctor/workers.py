"""Checks of ``daybreakd doctor`` for external workers: registry, manager, workers, each model, and the token."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Iterator

from daybreak_server import wiring
from daybreak_server.cli.doctor.check import Check, error, ok, warning
from daybreak_server.cli.doctor.serving import connect, pool_views
from daybreak_server.domain import models
from daybreak_server.domain.models import ModelState, ModelView, WorkerRecord
from daybreak_server.local.embedded_valkey import url_in
from daybreak_server.local.instance import GATEWAY_MODE, running_state
from daybreak_server.ports.registry import RegistryView
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.tree import Settings

WORKERS_MAX = 50
"""The command connects to at most this many workers, and shows a line for each of them."""
MODELS_MAX = 50
"""Of the models without a problem, the command shows at most this many, with a line each."""


def examine(settings: Settings) -> Iterator[Check]:
    """Check the workers and models, if there are any, and whether any machine could register as a worker."""
    try:
        view = registry_view(settings)
    except StoreError as exc:
        yield error("models", f"the registry cannot be read: {exc}", "correct what the check `redis` reports")
        return
    if view is not None:
        if not view.models and not view.workers:
            return
        yield from _manager(view)
        yield from _workers(view)
        yield from _models(view)
    if settings.workers.token is None and _reached_from_outside(settings.http.host):
        yield _token(settings)


def fronts_workers_only(settings: Settings) -> bool:
    """Whether the gateways of these settings serve models of workers and nothing else, so that nothing needs Ray.

    This is so if the settings name no pool, and either a gateway with an embedded store runs here, or Redis has workers
    or models and no group of the default pool.
    """
    if "pools" in settings.model_fields_set:
        return False
    if _embedded_url(settings) is not None:
        return running_state(settings.data_dir).get("mode") == GATEWAY_MODE
    try:
        view = registry_view(settings)
        if view is None or not (view.models or view.workers):
            return False
        return not any(pool.groups for pool in asyncio.run(pool_views(settings, list(settings.pools))))
    except StoreError:
        return False  # the check `redis` says why


def registry_view(settings: Settings) -> RegistryView | None:
    """The registry in the Redis that the settings name, or, if they name none, in the embedded store of their data
    folder. ``None`` if the settings name no Redis and the embedded store does not run.

    :raises StoreError: if the registry cannot be read.
    """
    if settings.redis.url is None:
        url = _embedded_url(settings)
        if url is None:
            return None
        settings = settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": url})})
    return asyncio.run(_view(settings))


def _embedded_url(settings: Settings) -> str | None:
    """The URL of the embedded store. ``None`` if the settings name a Redis, or the embedded store does not run."""
    url = url_in(settings.data_dir) if settings.redis.url is None else None
    return url if url is not None and connect(url) is None else None


async def _view(settings: Settings) -> RegistryView:
    registry = wiring.build_registry(settings)
    try:
        return await registry.view()
    finally:
        await registry.close()


def _manager(view: RegistryView) -> Iterator[Check]:
    if view.manager is not None:
        yield ok("manager", f"{view.manager} places models")
    elif view.models:
        yield error(
            "manager",
            "none places models, so no model starts, stops or moves",
            "start a gateway with these settings. If one runs, its log says why it cannot plan",
        )


def _workers(view: RegistryView) -> Iterator[Check]:
    what, workers = "workers", view.workers
    if not workers:
        needed = view.plan.workers_wanted
        if needed:
            advice = "start one: `daybreakd worker --manager-url http://GATEWAY:8000`"
            yield warning(what, f"none is registered, and the models need {needed}", advice)
        else:
            yield ok(what, "none is registered, and none is needed")
        return
    draining = sum(worker.draining for worker in workers)
    tried = [(worker, connect(worker.url)) for worker in workers[:WORKERS_MAX]]
    unreachable = [(worker, problem) for worker, problem in tried if problem is not None]
    if unreachable:
        yield _unreachable(unreachable, len(tried))
    else:
        of_them = f", {draining} of them draining" if draining else ""
        tried_first = f"the first {len(tried)} " if len(tried) < len(workers) else ""
        yield ok(what, f"{len(workers)} registered{of_them}, {tried_first}can be reached from here")
    for worker in workers[:WORKERS_MAX]:
        yield _worker(view, worker)


def _worker(view: RegistryView, worker: WorkerRecord) -> Check:
    what, engines = f"worker {worker.id}", ", ".join(sorted(worker.engines))
    seen = f"last seen {max(0, view.now_ms - worker.seen_ms) / 1000:.0f} s ago, " if worker.seen_ms else ""
    state = "draining" if worker.draining else "alive"
    found = f"{state}, {seen}at {worker.url}, engines: {engines or 'none'}"
    if engines:
        return ok(what, found)
    return warning(
        what, found, "put the program of an engine (`vllm`) on the PATH of the worker, and restart the worker"
    )


def _unreachable(unreachable: list[tuple[WorkerRecord, str]], tried: int) -> Check:
    worker, problem = unreachable[0]
    return error(
        "workers",
        f"{len(unreachable)} of {tried} cannot be reached from here: {worker.id} at {worker.url}: {problem}",
        "gateways need a connection to each worker: check firewalls and network policies, or give the worker the "
        "address at which gateways reach it (`--public-url`)",
    )


def _models(view: RegistryView) -> Iterator[Check]:
    shown = {alias: _shown(view, alias) for alias in sorted(view.models)}
    wrong = {alias: _problem(view, alias, model) for alias, model in shown.items()}
    yield from filter(None, wrong.values())
    for alias in [alias for alias in shown if wrong[alias] is None][:MODELS_MAX]:
        reason = f". {shown[alias].reason}" if shown[alias].reason else ""
        yield ok(f"model {alias}", f"{_counted(shown[alias])}{reason}")
    good = Counter(model.state.value for alias, model in shown.items() if wrong[alias] is None)
    if good:
        yield ok("models", ", ".join(f"{number} {state}" for state, number in sorted(good.items())))


def _counted(model: ModelView) -> str:
    """The state of a model and its replicas, such as ``ready, 1 of 2 wanted replicas are ready``."""
    if not model.wanted:
        return model.state.value
    return f"{model.state.value}, {model.ready} of {model.wanted} wanted replicas are ready"


def _shown(view: RegistryView, alias: str) -> ModelView:
    plan = view.plan
    return models.view(
        view.models[alias], wanted=plan.wanted.get(alias, 0), placement=plan.placement, workers=view.workers
    )


def _problem(view: RegistryView, alias: str, model: ModelView) -> Check | None:
    """What is wrong with a model; ``None`` if nothing is."""
    what, unplaced = f"model {alias}", view.plan.placement.unplaced.get(alias)
    if model.state is ModelState.FAILED:
        return warning(
            what,
            f"failed. {model.reason}",
            f"`daybreak models show {alias}` and the worker's log have the output of its engine. The worker tries "
            "again by itself; to change the model, delete and register it",
        )
    if unplaced is not None and model.state is not ModelState.DRAINING:
        return warning(
            what,
            f"{model.wanted} wanted, {model.ready} ready. {unplaced}",
            "add a worker that fits, or register the model with fewer replicas or less memory",
        )
    return None


def _token(settings: Settings) -> Check:
    return warning(
        "workers.token",
        f"not set, while the gateway listens on {settings.http.host}: any machine that reaches it may register as a "
        "worker and get requests",
        "set DAYBREAK_WORKERS__TOKEN to the same secret for gateways and workers",
    )


def _reached_from_outside(host: str) -> bool:
    """Whether other machines may reach a gateway that listens on this address."""
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host != "localhost"
