"""All planted bugs."""

from __future__ import annotations

from verification.mutants.catalogue_demand import DEMAND
from verification.mutants.catalogue_edges import EDGES
from verification.mutants.catalogue_embedding import EMBEDDING
from verification.mutants.catalogue_group import GROUP
from verification.mutants.catalogue_iterations import ITERATIONS
from verification.mutants.catalogue_registry import REGISTRY
from verification.mutants.catalogue_router import ROUTER
from verification.mutants.catalogue_serving import SERVING
from verification.mutants.catalogue_sessions import SESSIONS
from verification.mutants.catalogue_store import STORE
from verification.mutants.catalogue_totals import TOTALS
from verification.mutants.catalogue_worker import WORKER
from verification.mutants.mutant import Mutant

CATALOGUE: tuple[Mutant, ...] = (
    *(*STORE, *TOTALS, *GROUP, *SERVING, *DEMAND, *ROUTER),
    *(*WORKER, *REGISTRY, *EMBEDDING, *ITERATIONS, *SESSIONS, *EDGES),
)
