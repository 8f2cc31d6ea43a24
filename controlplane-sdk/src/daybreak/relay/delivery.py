"""An event in a consumer's hands. Decoded when it is asked for: who only passes it on never pays for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from daybreak.relay import entries
from daybreak.wire import Event

if TYPE_CHECKING:
    from daybreak.relay.reader import Relay


class Delivery:
    """An event in this consumer's hands until it is acknowledged."""

    __slots__ = ("_decoded", "_fields", "id", "redelivered", "relay")

    def __init__(
        self, id_: str, fields: Sequence[str], redelivered: bool, relay: Relay, decoded: Event | None = None
    ) -> None:
        self.id = id_
        """The event's id."""
        self.redelivered = redelivered
        """Whether it may have been handed out before: after a restart, or by a consumer that died."""
        self.relay = relay
        self._fields = fields
        self._decoded = decoded

    @property
    def event(self) -> Event:
        """The event. Decoded at the first look.

        :raises ValueError: when somebody else wrote the entry, with data that is not JSON.
        """
        if self._decoded is None:
            self._decoded = entries.event(self.id, self._fields)
            if self._decoded is None:
                raise ValueError(f"the entry {self.id} is of a type that this version does not know")
        return self._decoded

    @property
    def task(self) -> str:
        """The task's id; without decoding."""
        return self._fields[1] if self._decoded is None else self._decoded.task

    @property
    def type(self) -> str:
        """The event's type; without decoding."""
        return self._fields[3] if self._decoded is None else self._decoded.type.value

    def json(self) -> str:
        """The event as the API sends it, one JSON object: several times faster than :attr:`event` and then a dump."""
        text = entries.text(self.id, self._fields) if self._decoded is None else None
        return self.event.model_dump_json(exclude_none=True) if text is None else text

    async def ack(self) -> None:
        """It is done and will not come again. Waits for Redis while that is away."""
        await self.relay.ack(self)

    def __repr__(self) -> str:
        return (
            f"Delivery({self.id!r}, task={self.task!r}, type={self.type!r}, redelivered={self.redelivered})"
        )
