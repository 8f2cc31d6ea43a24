"""All planted bugs."""

from __future__ import annotations

from mutants.catalogue_edges import EDGES
from mutants.catalogue_group import GROUP
from mutants.catalogue_store import STORE
from mutants.mutant import Mutant

CATALOGUE: tuple[Mutant, ...] = (*STORE, *GROUP, *EDGES)
