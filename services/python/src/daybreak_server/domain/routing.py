"""How the router of a pool chooses the group that answers a request."""

from __future__ import annotations

from enum import StrEnum


class RoutingPolicy(StrEnum):
    """The policies. Each has a class in ``api.routing.policies``."""

    LEAST_LOADED = "least_loaded"
    """The group with the smallest share of its capacity in use."""
    ROUND_ROBIN = "round_robin"
    """Each group in turn."""
    POWER_OF_TWO = "power_of_two"
    """The less loaded of two random groups."""
    GPU_MEMORY = "gpu_memory"
    """The group with the most free device memory per request. The new request counts as one of the group's requests."""
    SESSION = "session"
    """The same group for all requests with the same header ``Daybreak-Session``."""
    PREFIX = "prefix"
    """The same group for bodies that begin with the same bytes, unless this group has much more work than others."""

    @classmethod
    def named(cls, name: str | None) -> RoutingPolicy | None:
        """The policy with this name; ``None`` if there is no name, or if this version does not know the policy."""
        return next((policy for policy in cls if policy == name), None)
