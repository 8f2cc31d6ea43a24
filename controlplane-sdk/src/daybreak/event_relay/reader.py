"""Reads a pool's stream as one consumer of a consumer group. Each event is delivered at least once, even if Redis or
the consumer restarts.

:class:`Relay` keeps a small buffer of entries. When the buffer is empty, ``_refill`` fills it from the first of three
sources that applies:

1. This consumer's own pending entries after the newest one that it has delivered. This source is read at the start and
   after every failed read, because Redis may have assigned entries in a reply that never arrived (``_recovering``).
2. Entries of any consumer that were delivered more than ``idle_s`` ago and not acknowledged (``XAUTOCLAIM``, twice per
   ``idle_s``).
3. New entries. The same transaction reads the counters of the stream and of the group, which show whether entries were
   trimmed before the group received them. If so, a :class:`~daybreak.errors.RelayGapError` comes before the entries.

A buffer that is older than ``idle_s / 2`` is dropped, because another consumer may have claimed its entries. If the
buffer was filled from source 2, its entries come back from source 2. Otherwise, the entries that still belong to this
consumer come back from source 1.

After the start, every command runs through ``_with_retries``, which waits until an outage of Redis is over and
recreates a group that was deleted. redis-py's own retries are off, because a repeated ``XREADGROUP`` returns later
entries, and the relay would skip those of the lost reply.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from redis import exceptions as failures

from daybreak.errors import ConfigError, DaybreakError, RelayGapError
from daybreak.event_relay import entries
from daybreak.event_relay.connection import connect, is_temporary, translate_error
from daybreak.event_relay.delivery import Delivery
from daybreak.event_relay.entries import BEGINNING, Position, format_entry_id, parse_entry_id
from daybreak.event_relay.redis_url import checked
from daybreak.wire import Event

T = TypeVar("T")
Entry = tuple[str, Sequence[str]]
"""An entry as Redis sends it: its id, and its fields as name, value, name, value, …"""
log = logging.getLogger(__name__)

_BACKOFF_S = (0.1, 0.25, 0.5, 1.0, 2.0)
_BLOCK_S = 5.0
"""How long a read may block. A dead connection is noticed at most ``timeout_s`` after this time."""
_NO_GROUP = re.compile(r"\b(NOGROUP|UNBLOCKED|no such key)\b")


class Relay:
    """``async for delivery in relay`` delivers the events of ``pool``, each at least once.

    It first delivers the events that this consumer had not acknowledged when it stopped, then events that were
    delivered more than ``idle_s`` seconds ago and not acknowledged, then new events. An event that is not acknowledged
    within ``idle_s`` seconds is soon delivered again, to this consumer or another. Two processes must not use the same
    ``consumer`` name. New events arrive in order. The consumers of a group share its events, so one consumer receives
    all events only if its group has no other consumer. ``RelayGapError`` reports events that Redis deleted before the
    group received them.

    ``start`` says where a new group begins: ``"0"`` means the oldest event, ``"$"`` the next new event, and an event id
    the event after that one. The relay buffers at most ``batch`` events. Only one coroutine may iterate;
    any coroutine may acknowledge.

    ``redis_url`` begins with ``redis://``, ``rediss://`` (TLS) or ``unix://`` (``unix:///path?db=0``). The options in
    its query may be ``db``, ``client_name`` and, for TLS, ``ssl_ca_certs``, ``ssl_cert_reqs``, ``ssl_certfile``,
    ``ssl_check_hostname`` and ``ssl_keyfile``.

    :raises ConfigError: if the URL has another form or another option.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        pool: str,
        group: str,
        consumer: str,
        prefix: str = "daybreak",
        start: str = "0",
        idle_s: float = 60.0,
        batch: int = 100,
        timeout_s: float = 5.0,
    ) -> None:
        try:
            self._url = checked(redis_url)
        except ValueError as exc:
            raise ConfigError(f"the URL of Redis cannot be used: {exc}") from None
        self._key = entries.stream_key(prefix, pool)
        self._group, self._consumer = group, consumer
        self._start, self._idle_s, self._batch, self._timeout_s = start, idle_s, batch, timeout_s
        self._read_client: Any = None
        self._ack_client: Any = None
        self._buffer: deque[Entry | RelayGapError] = deque()
        self._buffered_at = 0.0
        self._buffer_redelivered = False
        self._buffer_claimed = False
        # Whether to read this consumer's own pending entries: at the start, and after each failed read.
        self._recovering = True
        self._delivered_position: Position = BEGINNING
        self._newest_id = ""
        self._claim_from = "0-0"
        self._claim_at = 0.0
        self._trimmed_reported = 0

    async def __aenter__(self) -> Self:
        """Connect, and create the group if it does not exist.

        :raises UnreachableError: if Redis does not respond now. In a later outage the relay waits.
        :raises ConfigError: if Redis refuses the login, if the user lacks a permission, or if the key is not a stream.
        """
        try:
            self._read_client = self._connect(_BLOCK_S + self._timeout_s)
            self._ack_client = self._connect(self._timeout_s)
            await self._create_group(self._start)
        except BaseException as exc:
            await self._close()
            if isinstance(exc, failures.RedisError | OSError | ValueError):
                raise translate_error(exc) from exc
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        """The next event. Waits for it, even while Redis is unavailable.

        :raises RelayGapError: once for each gap: events that the group had not received were trimmed, or the group
            itself was deleted. Iterate again to continue.
        """
        while True:
            self._drop_stale_buffer()
            while self._buffer:
                item = self._buffer.popleft()
                if isinstance(item, RelayGapError):
                    raise item
                entry_id, fields = item
                if not self._buffer_claimed:
                    self._newest_id = entry_id
                if entries.is_well_formed(fields):
                    return Delivery(entry_id, fields, self._buffer_redelivered, self)
                event = self._decode(entry_id, fields)
                if event is not None:
                    return Delivery(entry_id, fields, self._buffer_redelivered, self, event)
                await self._ack_ids(entry_id)
            await self._with_retries(self._refill)

    async def ack(self, *deliveries: Delivery) -> None:
        """Acknowledge deliveries in one round trip."""
        if deliveries:
            await self._ack_ids(*[delivery.id for delivery in deliveries])

    @property
    def _delivered(self) -> Position:
        """The position of the newest delivered event. Its id is parsed here, when needed, instead of once per event."""
        if self._newest_id:
            newest = parse_entry_id(self._newest_id)
            self._delivered_position, self._newest_id = max(self._delivered_position, newest), ""
        return self._delivered_position

    @_delivered.setter
    def _delivered(self, position: Position) -> None:
        self._delivered_position, self._newest_id = position, ""

    async def _ack_ids(self, *ids: str) -> None:
        await self._with_retries(
            lambda: self._require_open(self._ack_client).xack(self._key, self._group, *ids)
        )

    def _decode(self, entry_id: str, fields: Sequence[str]) -> Event | None:
        try:
            return entries.decode_event(entry_id, fields)
        except ValueError:
            # Another program wrote to the stream. Its entry must not block the events after it.
            log.exception("skipping an entry of %s that cannot be decoded", self._key)
            return None

    def _drop_stale_buffer(self) -> None:
        """Drop entries that another consumer may have claimed.

        If this consumer had claimed the entries (source 2), they can be claimed again once they have been idle for
        ``idle_s``. Otherwise, the entries that still belong to this consumer are read again (source 1).
        """
        if self._buffer and time.monotonic() - self._buffered_at > self._idle_s / 2:
            self._buffer = deque(item for item in self._buffer if isinstance(item, RelayGapError))
            self._recovering = self._recovering or not self._buffer_claimed

    async def _refill(self) -> None:
        """Fill the buffer, or leave it empty if nothing arrives for a while."""
        if self._buffer:
            return
        try:
            if self._recovering:
                await self._read_own()
            elif time.monotonic() >= self._claim_at:
                await self._claim_abandoned()
            else:
                await self._read_new()
        except BaseException:
            # Redis may have assigned entries that did not arrive, even if the read was cancelled.
            self._recovering = True
            raise

    async def _read_own(self) -> None:
        """Read this consumer's pending entries after the newest delivered one. A trimmed entry has no fields."""
        found = await self._read_group(format_entry_id(self._delivered))
        self._recovering = bool(found)
        lost = [entry_id for entry_id, fields in found if not fields]
        self._fill_buffer([item for item in found if item[1]], redelivered=True)
        if lost:
            self._report_lost(lost)
            if len(lost) == len(found):
                self._delivered = max(self._delivered, parse_entry_id(found[-1][0]))
            await self._require_open(self._read_client).xack(self._key, self._group, *lost)

    async def _claim_abandoned(self) -> None:
        """Claim one page of the entries that were delivered more than ``idle_s`` ago and not acknowledged."""
        self._claim_from, found, *rest = await self._require_open(self._read_client).xautoclaim(
            self._key,
            self._group,
            self._consumer,
            round(self._idle_s * 1000),
            start_id=self._claim_from,
            count=self._batch,
        )
        if self._claim_from == "0-0":
            self._claim_at = time.monotonic() + self._idle_s / 2
        self._fill_buffer(found, redelivered=True, claimed=True)
        if rest and rest[0]:
            self._report_lost(rest[0])

    async def _read_new(self) -> None:
        """Read new entries, and in the same transaction the counters that show whether the group missed any."""
        async with self._require_open(self._read_client).pipeline(transaction=True) as pipe:
            pipe.xinfo_stream(self._key)
            pipe.xinfo_groups(self._key)
            pipe.execute_command(*self._read_command(">"))
            stream, groups, response = await pipe.execute()
        group = next(info for info in groups if info["name"] == self._group)
        # The buffer is empty, so the caller has all entries of this consumer up to the group's `last-delivered-id`.
        # After a failed read, this consumer reads its pending entries after that id.
        self._delivered = max(self._delivered, parse_entry_id(group["last-delivered-id"]))
        found = response[0][1] if response else []
        gap = self._find_gap(stream, group)
        if not found and not gap:
            wait_s = max(0.01, min(_BLOCK_S, self._claim_at - time.monotonic()))
            found = await self._read_group(">", block=round(wait_s * 1000))
        self._fill_buffer(found, redelivered=False)
        if gap:
            self._trimmed_reported = stream["entries-added"] - stream["length"]
            self._buffer.appendleft(gap)

    def _find_gap(self, stream: dict[str, Any], group: dict[str, Any]) -> RelayGapError | None:
        """The gap, if entries were trimmed that the group had not received. Nothing but trimming removes entries."""
        trimmed = stream["entries-added"] - stream["length"]
        last, newest = parse_entry_id(group["last-delivered-id"]), parse_entry_id(stream["last-generated-id"])
        first = stream["first-entry"]
        before = parse_entry_id(first[0]) if first else entries.id_after(newest)
        # How many entries the group has ever received; None if Redis does not know. Redis 7.0 counts too few after a
        # gap. The relay may then report a gap where nothing is missing, but it never overlooks a gap.
        read = group["entries-read"]
        if trimmed <= self._trimmed_reported or last >= newest or last >= before:
            return None
        if read is not None and read >= trimmed:
            return None
        return self._gap_error(last, before)

    def _gap_error(self, after: Position, before: Position | None) -> RelayGapError:
        reason = f"{self._key} was trimmed" if before else f"the group {self._group} of {self._key} was lost"
        gap = RelayGapError(
            reason, after=format_entry_id(after), before=format_entry_id(before) if before else None
        )
        log.warning("%s", gap)
        return gap

    def _report_lost(self, ids: list[str]) -> None:
        lost = sorted(map(parse_entry_id, ids))
        self._buffer.appendleft(self._gap_error(entries.id_before(lost[0]), entries.id_after(lost[-1])))

    def _fill_buffer(self, found: list[Entry], *, redelivered: bool, claimed: bool = False) -> None:
        self._buffer.extend(found)
        self._buffered_at = time.monotonic()
        self._buffer_redelivered, self._buffer_claimed = redelivered, claimed

    async def _read_group(self, after: str, *, block: int | None = None) -> list[Entry]:
        command = self._read_command(after, block=block)
        response = await self._require_open(self._read_client).execute_command(*command)
        found: list[Entry] = response[0][1] if response else []
        return found

    def _read_command(self, after: str, *, block: int | None = None) -> list[str | int]:
        options: list[str | int] = [] if block is None else ["BLOCK", block]
        head: list[str | int] = ["XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", self._batch]
        return [*head, *options, "STREAMS", self._key, after]

    async def _create_group(self, start: str) -> None:
        """Create the group unless it exists. If it begins at the oldest event, earlier trimming is not a gap."""
        read: int | None = None
        if start in {"0", "0-0"}:
            info = await self._stream_info()
            read = info["entries-added"] - info["length"] if info else 0
        try:
            await self._require_open(self._read_client).xgroup_create(
                self._key, self._group, id=start, mkstream=True, entries_read=read
            )
        except failures.ResponseError as exc:
            if "BUSYGROUP" not in str(exc):
                raise

    async def _recreate_group(self) -> None:
        """Recreate a deleted group, and report a gap.

        The new group continues after the newest delivered event. It begins at ``start`` if Redis lost its data, or if
        no event was delivered before.
        """
        info = await self._stream_info()
        resumable = (
            info is not None and parse_entry_id(info["last-generated-id"]) >= self._delivered > BEGINNING
        )
        await self._create_group(format_entry_id(self._delivered) if resumable else self._start)
        gap = self._gap_error(self._delivered, None)
        self._delivered = self._delivered if resumable else BEGINNING
        self._trimmed_reported = 0
        self._buffer.append(gap)

    async def _stream_info(self) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = await self._require_open(self._read_client).xinfo_stream(self._key)
        except failures.ResponseError as exc:
            if "no such key" not in str(exc):
                raise
            return None
        return info

    async def _with_retries(self, action: Callable[[], Awaitable[T]]) -> T | None:
        """Run a command, and retry it while Redis is unavailable. Returns ``None`` if the group had to be recreated."""
        attempts = 0
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        cancellations = task.cancelling()
        while True:
            try:
                try:
                    result = await action()
                    if task.cancelling() > cancellations:
                        # Python 3.11 or redis-py swallowed the cancellation. Without this exception, the caller's
                        # `wait_for` would hang.
                        raise asyncio.CancelledError
                    return result
                except failures.ResponseError as exc:
                    if not _NO_GROUP.search(str(exc)):
                        raise
                    await self._recreate_group()
                    return None
            except (failures.RedisError, OSError) as exc:
                if not is_temporary(exc):
                    raise translate_error(exc) from exc
                if task.cancelling() > cancellations:
                    raise asyncio.CancelledError from exc
                if attempts == 0:
                    log.warning("Redis does not serve %s, retrying: %s", self._key, exc)
                await asyncio.sleep(_BACKOFF_S[min(attempts, len(_BACKOFF_S) - 1)] * random.uniform(0.5, 1))
                attempts += 1

    def _connect(self, read_timeout_s: float) -> Any:
        return connect(self._url, read_timeout_s=read_timeout_s, connect_timeout_s=self._timeout_s)

    @staticmethod
    def _require_open(client: Any) -> Any:
        if client is None:
            raise DaybreakError("the relay is closed: use it in `async with`")
        return client

    async def _close(self) -> None:
        clients = (self._read_client, self._ack_client)
        self._read_client, self._ack_client = None, None
        for client in clients:
            if client is not None:
                await client.aclose()
