"""The names of the registry's keys. All carry the hash tag ``{registry}``, which no pool may have."""

from __future__ import annotations

from dataclasses import dataclass

from daybreak_server.adapters.redis.key_names import Family, Key, TaggedKeys
from daybreak_server.domain.names import REGISTRY

SINGLE = {
    "meta": Key("hash", "the version of the registry, and its lease clock"),
    "models": Key(
        "hash", "for each registered model: `0` (or `1` if it is marked as deleted), followed by its JSON"
    ),
    "workers": Key("zset", "workers by the end of their lease, on the lease clock"),
    "demand": Key(
        "hash",
        "for each gateway: the end of the lease on this entry, then, for each model, how many requests the gateway has "
        "for the model",
    ),
    "last_request": Key(
        "hash",
        "when each model last had a request, on the lease clock, so an outage does not count as time without requests",
    ),
    "plan": Key("string", "which worker should run which model, as JSON; the manager writes it"),
    "lease": Key("hash", "which process is the manager, with its priority and the end of its lease"),
    "wanted": Key("zset", "a member for each worker that the models need; KEDA reads its `ZCARD`"),
    "changes": Key(
        "stream",
        "one entry for each of the registry's last versions; processes read it to wait for the next version",
    ),
}
FAMILIES = {
    "worker": Family(
        "w:",
        "",
        "id",
        Key(
            "hash",
            "a worker as it registered (`fixed`), as it last reported (`state`), and when that was (`seen`)",
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryKeys(TaggedKeys):
    """The keys of the registry."""

    singles = SINGLE
    families = FAMILIES

    @property
    def tag(self) -> str:
        """The name that no pool may have."""
        return REGISTRY
