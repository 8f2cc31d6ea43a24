"""Every event of a pool, for a control plane that relays them to users of its own. Reads Redis, not HTTP.

>>> from daybreak.relay import Relay
>>> async with Relay("redis://…", pool="video", group="control-plane", consumer="pod-0") as relay:
...     async for delivery in relay:
...         await forward(delivery.event)
...         await delivery.ack()

Who only passes events on takes ``delivery.json()``: it is not decoded for that.
"""

from __future__ import annotations

try:
    import redis.asyncio
except ImportError as exc:
    raise ImportError("daybreak.relay needs redis: pip install 'daybreak-sdk[relay]'", name="redis") from exc

from daybreak.errors import RelayGapError
from daybreak.relay.delivery import Delivery
from daybreak.relay.reader import Relay

__all__ = ["Delivery", "Relay", "RelayGapError"]
