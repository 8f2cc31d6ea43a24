"""Everything that a plan is made from: one moment, as far as it was heard of. Parts of it may lag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import PoolView
from daybreak_server.operator.crd.resource import GeneratorPool
from daybreak_server.ports.cluster import ClusterView, ServeView


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One look at a pool."""

    now: float
    """Seconds since 1970; the plan reads no clock of its own."""
    pool: GeneratorPool
    view: ClusterView
    serve: Mapping[str, ServeView] = field(default_factory=dict)
    """By RayCluster; one that could not be asked is not in it."""
    store: PoolView | None = None
    """``None``: Redis could not be asked. Nothing is taken away then."""
    store_error: Cause | None = None
    """Why it could not."""
    refused: Cause | None = None
    """Why Kubernetes refused, at the last look, what the plan wanted of a RayCluster."""
    failure: Cause | None = None
    """Why a rank ended last (a model that is missing, S3 that refuses)."""
