"""``publish_demand.lua``: how many requests a gateway has for a pool of kind ``online``."""

from __future__ import annotations

from daybreak_server.adapters.redis.arguments import PublishedDemand
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Call


def encode(keys: Keys, gateway: str, requests: int, *, ttl_s: float, target_load: float) -> Call:
    """Replace the gateway's entry. ``target_load``: the requests that one group should have."""
    demand = PublishedDemand(
        gateway=gateway, requests=requests, ttl_ms=round(ttl_s * 1000), target_load=target_load
    )
    return Call("publish_demand", keys, demand)
