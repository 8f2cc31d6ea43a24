"""An event that a consumer has received. It is decoded only if needed, so passing it on unchanged is cheap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daybreak.event_relay import entries
from daybreak.wire import Event


class Acknowledger(Protocol):
    """What a delivery needs from its relay."""

    async def ack(self, *deliveries: Delivery) -> None:
        """Acknowledge deliveries in one round trip."""


class Delivery:
    """An event that this consumer owns until the event is acknowledged or another consumer claims it."""

    __slots__ = ("_acknowledger", "_decoded", "_fields", "id", "redelivered")

    def __init__(
        self,
        id_: str,
        fields: Sequence[str],
        redelivered: bool,
        acknowledger: Acknowledger,
        decoded: Event | None = None,
    ) -> None:
        self.id = id_
        """The event's id."""
        self.redelivered = redelivered
        """Whether the event may have been delivered before: to this consumer, or to another one."""
        self._acknowledger = acknowledger
        self._fields = fields
        self._decoded = decoded

    @property
    def event(self) -> Event:
        """The event, decoded on first use.

        :raises ValueError: if this version does not know the event's type, or if Daybreak did not write the entry.
        """
        if self._decoded is None:
            self._decoded = entries.decode_event(self.id, self._fields)
            if self._decoded is None:
                raise ValueError(f"entry {self.id} has an event type that this version does not know")
        return self._decoded

    @property
    def task(self) -> str:
        """The task's id, without decoding."""
        return self._fields[1] if self._decoded is None else self._decoded.task

    @property
    def type(self) -> str:
        """The event's type, without decoding."""
        return self._fields[3] if self._decoded is None else self._decoded.type.value

    def json(self) -> str:
        """The event as the API sends it: one JSON object. This is several times faster than dumping :attr:`event`."""
        text = entries.event_json(self.id, self._fields) if self._decoded is None else None
        return self.event.model_dump_json(exclude_none=True) if text is None else text

    async def ack(self) -> None:
        """Acknowledge the event, so that it is not delivered again. The call waits while Redis is unavailable."""
        await self._acknowledger.ack(self)

    def __repr__(self) -> str:
        return (
            f"Delivery({self.id!r}, task={self.task!r}, type={self.type!r}, redelivered={self.redelivered})"
        )
