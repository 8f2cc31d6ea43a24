"""The input of a plan: one observation of a pool. Parts of it may be out of date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import PoolView
from daybreak_server.operator.crd.resource import GeneratorPool
from daybreak_server.ports.cluster import ClusterView, ServeView


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One observation of a pool."""

    now: float
    """Seconds since 1970; the plan reads no clock of its own."""
    pool: GeneratorPool
    view: ClusterView
    serve: Mapping[str, ServeView] = field(default_factory=dict)
    """What Ray Serve reports, by the name of the RayCluster. RayClusters whose head did not answer are missing."""
    store: PoolView | None = None
    """``None`` if Redis could not be read. The plan then removes nothing."""
    store_error: Cause | None = None
    """Why Redis could not be read."""
    refused: Cause | None = None
    """Why Kubernetes refused a change of a RayCluster in the previous step."""
    failure: Cause | None = None
    """Why a rank last failed, for example because the model is missing or S3 refused access."""
