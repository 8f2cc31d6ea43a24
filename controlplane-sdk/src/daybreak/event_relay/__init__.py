"""Reads every event of a pool directly from Redis, for a control plane that relays events to its own users.

>>> from daybreak.event_relay import Relay
>>> async with Relay("redis://…", pool="video", group="control-plane", consumer="pod-0") as relay:
...     async for delivery in relay:
...         await forward(delivery.event)
...         await delivery.ack()

To pass an event on unchanged, use ``delivery.json()``, which does not decode it.
"""

from __future__ import annotations

try:
    import redis.asyncio  # noqa: F401 - imported first, so that the error below can say what to install
except ImportError as exc:
    raise ImportError(
        "daybreak.event_relay needs redis: pip install 'daybreak-sdk[relay]'", name="redis"
    ) from exc

from daybreak.errors import RelayGapError
from daybreak.event_relay.delivery import Delivery
from daybreak.event_relay.reader import Relay

__all__ = ["Delivery", "Relay", "RelayGapError"]
