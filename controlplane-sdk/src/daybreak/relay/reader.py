"""Reads a pool's stream as one consumer of a group: everything at least once, over restarts of either side."""

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

import redis.asyncio
from redis import exceptions as failures
from redis.backoff import NoBackoff

from daybreak.errors import ConfigError, DaybreakError, RelayGapError, UnreachableError
from daybreak.relay import entries, packing
from daybreak.relay.delivery import Delivery
from daybreak.relay.entries import NOWHERE, Place, place, written
from daybreak.relay.redis_url import checked
from daybreak.wire import Event

T = TypeVar("T")
Entry = tuple[str, Sequence[str]]
"""An entry as the server sends it: its id, and its fields as name, value, name, value, …"""
log = logging.getLogger(__name__)

_BACKOFF_S = (0.1, 0.25, 0.5, 1.0, 2.0)
_BLOCK_S = 5.0
"""How long one blocking read waits; a dead connection is noticed so much later at most."""
_PASSING = re.compile(r"\b(MISCONF|BUSY|LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|OOM)\b")
_NO_GROUP = re.compile(r"\b(NOGROUP|UNBLOCKED|no such key)\b")
_OUTAGES = (
    failures.ConnectionError,
    failures.TimeoutError,
    failures.ReadOnlyError,
    failures.ClusterDownError,
    failures.TryAgainError,
    failures.OutOfMemoryError,
    OSError,
)


class Relay:
    """``async for delivery in relay`` gives every event of ``pool`` in order, each at least once.

    First what this consumer had in its hands when it ended, then what consumers held that have not been heard of
    for ``idle_s`` seconds, then what is new. An event that nobody acknowledges in ``idle_s`` comes again, to this
    consumer or another. Two processes never share a ``consumer`` name; consumers of a group share its events, so
    order over all tasks holds for a single consumer only.

    ``start`` says where a group that does not exist yet begins: ``"0"`` with the oldest event there is, ``"$"``
    with the next one, or behind an event's id. At most ``batch`` events are held. One coroutine iterates; any may
    acknowledge.

    ``redis_url`` is ``redis://``, ``rediss://`` (TLS) or ``unix:///path?db=0``. Behind ``?`` it may have ``db``,
    ``client_name`` and, for TLS, ``ssl_ca_certs``, ``ssl_cert_reqs``, ``ssl_certfile``, ``ssl_check_hostname`` and
    ``ssl_keyfile``.

    :raises ConfigError: when the URL has anything else.
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
        self._reading: Any = None
        self._acking: Any = None
        self._held: deque[Entry | RelayGapError] = deque()
        self._held_since = 0.0
        self._held_is_old = False
        self._held_is_claimed = False
        # Whether our pending entries behind `_seen` must be read: at first, and after each read that broke.
        self._recovering = True
        self._place: Place = NOWHERE
        self._popped = ""
        self._claim_from = "0-0"
        self._claim_at = 0.0
        self._trimmed_told = 0

    async def __aenter__(self) -> Self:
        """Connect, and make the group where there is none.

        :raises UnreachableError: when Redis does not answer now; from then on, outages are waited out.
        :raises ConfigError: when it refuses (user, password, rights, or the key is something else).
        """
        try:
            self._reading = self._connect(_BLOCK_S + self._timeout_s)
            self._acking = self._connect(self._timeout_s)
            await self._make_group(self._start)
        except BaseException as exc:
            await self._close()
            if isinstance(exc, failures.RedisError | OSError | ValueError):
                raise _translated(exc) from exc
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        """The next event; waits for it, also while Redis is away.

        :raises RelayGapError: once, where events were trimmed that the group has not seen. Iterate again to go on.
        """
        while True:
            self._drop_what_others_may_have()
            while self._held:
                item = self._held.popleft()
                if isinstance(item, RelayGapError):
                    raise item
                entry_id, fields = item
                if not self._held_is_claimed:
                    self._popped = entry_id
                if entries.readable(fields):
                    return Delivery(entry_id, fields, self._held_is_old, self)
                event = self._read(entry_id, fields)
                if event is not None:
                    return Delivery(entry_id, fields, self._held_is_old, self, event)
                await self._ack_ids(entry_id)
            await self._lasting(self._fetch)

    async def ack(self, *deliveries: Delivery) -> None:
        """Acknowledge many in one round trip."""
        if deliveries:
            await self._ack_ids(*[delivery.id for delivery in deliveries])

    @property
    def _seen(self) -> Place:
        """The newest place that was handed out. Worked out when it is asked for, not for each event."""
        if self._popped:
            self._place, self._popped = max(self._place, place(self._popped)), ""
        return self._place

    @_seen.setter
    def _seen(self, at: Place) -> None:
        self._place, self._popped = at, ""

    async def _ack_ids(self, *ids: str) -> None:
        await self._lasting(lambda: self._open(self._acking).xack(self._key, self._group, *ids))

    def _read(self, entry_id: str, fields: Sequence[str]) -> Event | None:
        try:
            return entries.event(entry_id, fields)
        except ValueError:  # somebody else wrote to the stream: it must not stop everything behind it
            log.exception("skipping an entry of %s that cannot be read", self._key)
            return None

    def _drop_what_others_may_have(self) -> None:
        """Events that lay here for long may be claimed: read again what is still ours."""
        if self._held and time.monotonic() - self._held_since > self._idle_s / 2:
            self._held = deque(item for item in self._held if isinstance(item, RelayGapError))
            self._recovering = self._recovering or not self._held_is_claimed

    async def _fetch(self) -> None:
        """Hold some events, or none when nothing came for a while."""
        if self._held:
            return
        try:
            if self._recovering:
                await self._fetch_own()
            elif time.monotonic() >= self._claim_at:
                await self._fetch_left()
            else:
                await self._fetch_new()
        except BaseException:  # also a cancel: the server may have handed out what has not arrived
            self._recovering = True
            raise

    async def _fetch_own(self) -> None:
        """What this consumer was given, behind the last that it handed out. Those trimmed since are no more."""
        found = await self._read_group(written(self._seen))
        self._recovering = bool(found)
        lost = [entry_id for entry_id, fields in found if not fields]
        self._hold([item for item in found if item[1]], old=True)
        if lost:
            self._say_lost(lost)
            self._seen = max(self._seen, place(found[-1][0])) if len(lost) == len(found) else self._seen
            await self._open(self._reading).xack(self._key, self._group, *lost)

    async def _fetch_left(self) -> None:
        """What consumers left that are silent for long, a page at a time."""
        self._claim_from, found, *rest = await self._open(self._reading).xautoclaim(
            self._key,
            self._group,
            self._consumer,
            round(self._idle_s * 1000),
            start_id=self._claim_from,
            count=self._batch,
        )
        if self._claim_from == "0-0":
            self._claim_at = time.monotonic() + self._idle_s / 2
        self._hold(found, old=True, claimed=True)
        if rest and rest[0]:
            self._say_lost(rest[0])

    async def _fetch_new(self) -> None:
        """What nobody was given, after a look whether the stream still has all of it; both are one step."""
        async with self._open(self._reading).pipeline(transaction=True) as pipe:
            pipe.xinfo_stream(self._key)
            pipe.xinfo_groups(self._key)
            pipe.execute_command(*self._reading_of(">"))
            stream, groups, answer = await pipe.execute()
        group = next(one for one in groups if one["name"] == self._group)
        # All that was ours up to there has been handed out: nothing of it is read again after a broken wait.
        self._seen = max(self._seen, place(group["last-delivered-id"]))
        found = answer[0][1] if answer else []
        gap = self._gap(stream, group)
        if not found and not gap:
            wait_s = max(0.01, min(_BLOCK_S, self._claim_at - time.monotonic()))
            found = await self._read_group(">", block=round(wait_s * 1000))
        self._hold(found, old=False)
        if gap:
            self._trimmed_told = stream["entries-added"] - stream["length"]
            self._held.appendleft(gap)

    def _gap(self, stream: dict[str, Any], group: dict[str, Any]) -> RelayGapError | None:
        """Whether entries were trimmed that the group had not been given. Nothing else removes entries."""
        trimmed = stream["entries-added"] - stream["length"]
        last, newest = place(group["last-delivered-id"]), place(stream["last-generated-id"])
        first = stream["first-entry"]
        before = place(first[0]) if first else entries.just_behind(newest)
        # How many it was given ever. None where the server does not know; Redis 7.0 says too few behind a gap, so
        # that a later gap may be said where just nothing is missing, never the other way round.
        read = group["entries-read"]
        if trimmed <= self._trimmed_told or last >= newest or last >= before:
            return None
        if read is not None and read >= trimmed:
            return None
        return self._gap_error(last, before)

    def _gap_error(self, after: Place, before: Place | None) -> RelayGapError:
        why = f"{self._key} was trimmed" if before else f"the group {self._group} of {self._key} was lost"
        gap = RelayGapError(why, after=written(after), before=written(before) if before else None)
        log.warning("%s", gap)
        return gap

    def _say_lost(self, ids: list[str]) -> None:
        places = sorted(map(place, ids))
        gap = self._gap_error(entries.just_before(places[0]), entries.just_behind(places[-1]))
        self._held.appendleft(gap)

    def _hold(self, found: list[Entry], *, old: bool, claimed: bool = False) -> None:
        self._held.extend(found)
        self._held_since = time.monotonic()
        self._held_is_old, self._held_is_claimed = old, claimed

    async def _read_group(self, after: str, *, block: int | None = None) -> list[Entry]:
        answer = await self._open(self._reading).execute_command(*self._reading_of(after, block=block))
        found: list[Entry] = answer[0][1] if answer else []
        return found

    def _reading_of(self, after: str, *, block: int | None = None) -> list[str | int]:
        waiting: list[str | int] = [] if block is None else ["BLOCK", block]
        who: list[str | int] = ["XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", self._batch]
        return [*who, *waiting, "STREAMS", self._key, after]

    async def _make_group(self, start: str) -> None:
        """Make it unless it is there. From the oldest event, what was trimmed before is no gap."""
        read: int | None = None
        if start in {"0", "0-0"}:
            info = await self._stream()
            read = info["entries-added"] - info["length"] if info else 0
        try:
            await self._open(self._reading).xgroup_create(
                self._key, self._group, id=start, mkstream=True, entries_read=read
            )
        except failures.ResponseError as exc:
            if "BUSYGROUP" not in str(exc):
                raise

    async def _mend_group(self) -> None:
        """Somebody removed the group, or Redis lost its data: go on where this consumer was, and say so."""
        stream = await self._stream()
        there = stream is not None and place(stream["last-generated-id"]) >= self._seen > NOWHERE
        await self._make_group(written(self._seen) if there else self._start)
        gap = self._gap_error(self._seen, None)
        self._seen = self._seen if there else NOWHERE
        self._trimmed_told = 0
        self._held.append(gap)

    async def _stream(self) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = await self._open(self._reading).xinfo_stream(self._key)
        except failures.ResponseError as exc:
            if "no such key" not in str(exc):
                raise
            return None
        return info

    async def _lasting(self, action: Callable[[], Awaitable[T]]) -> T | None:
        """Do it, over as many outages of Redis as there are; ``None`` after the group had to be made again."""
        tries = 0
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        cancels = task.cancelling()
        while True:
            try:
                try:
                    done = await action()
                    if task.cancelling() > cancels:
                        # Python 3.11 or the client lost it: then a caller's `wait_for` would never come back.
                        raise asyncio.CancelledError
                    return done
                except failures.ResponseError as exc:
                    if not _NO_GROUP.search(str(exc)):
                        raise
                    await self._mend_group()
                    return None
            except (failures.RedisError, OSError) as exc:
                if not isinstance(exc, _OUTAGES) and not _PASSING.search(str(exc)):
                    raise _translated(exc) from exc
                if task.cancelling() > cancels:
                    raise asyncio.CancelledError from exc
                if tries == 0:
                    log.warning("Redis does not serve %s, trying again: %s", self._key, exc)
                await asyncio.sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)] * random.uniform(0.5, 1))
                tries += 1

    def _connect(self, timeout_s: float) -> Any:
        """A client that repeats nothing by itself: a read that is sent twice would hand out events twice."""
        # A Unix socket has nothing to keep alive, and redis-py refuses to be told so.
        keepalive: dict[str, Any] = {} if self._url.startswith("unix:") else {"socket_keepalive": True}
        client = redis.asyncio.Redis.from_url(
            self._url,
            retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
            socket_timeout=timeout_s,
            socket_connect_timeout=self._timeout_s,
            **keepalive,
            protocol=2,
            decode_responses=True,
        )
        for command in (
            "XREADGROUP",
            "XAUTOCLAIM",
        ):  # as they come: each entry is taken apart once, by `entries`
            client.set_response_callback(command, cast("Any", _as_it_is))
        packing.in_c(client.connection_pool)
        return client

    @staticmethod
    def _open(client: Any) -> Any:
        if client is None:
            raise DaybreakError("the relay is closed: use it in `async with`")
        return client

    async def _close(self) -> None:
        clients, self._reading, self._acking = (self._reading, self._acking), None, None
        for client in clients:
            if client is not None:
                await client.aclose()


def _as_it_is(answer: Any, **_options: Any) -> Any:
    return answer


def _translated(exc: Exception) -> DaybreakError:
    if exc.args and isinstance(
        exc.args[0], failures.RedisError
    ):  # of a login on a Unix socket: redis-py wraps it
        exc = exc.args[0]
    refused = isinstance(exc, failures.AuthenticationError | failures.AuthorizationError)
    if isinstance(exc, _OUTAGES) and not refused:
        return UnreachableError(f"Redis cannot be reached: {exc}")
    return ConfigError(f"Redis refuses the relay: {exc}")
