"""Whatever gateways and groups do, and however time passes, the journal agrees with a small pure model."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from daybreak_server.adapters.redis.limits import SESSION_LOSSES_MAX
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.sessions import (
    Intake,
    SessionClaim,
    SessionCommit,
    SessionEnd,
    SessionEventType,
    SessionId,
    SessionsMeasured,
    Turn,
)
from daybreak_server.ports.sessions import (
    TENANT_LIMIT,
    AudioGapError,
    SessionEndedError,
    SessionsFullError,
)
from testkit.store_driver import Driver, check_keys
from testkit.valkey import Server
from tests.store.sessions.conftest import POOL, Sessions, take

T = TypeVar("T")
GROUPS = ("g1", "g2")
TENANTS = ("a", "b")
LEASE_S, TIMEOUT_S, MAX_SESSIONS, MAX_PER_TENANT = 5, 20, 4, 3
TURN = 2
"""The number of samples in a turn."""


@dataclass
class Model:
    """The expected state of a session."""

    tenant: str
    owner: str | None = None
    begun: bool = False
    losses: int = 0
    lease_end: int = 0
    idle_at: int = 0
    audio: bytes = b""
    ended: str | None = None
    input_ended: bool = False
    turns: list[Turn] = field(default_factory=list)
    text: str = ""
    kept: int = 0


class SessionMachine(RuleBasedStateMachine):
    """Two groups, one gateway and a clock. Groups also use claims that they have lost, and so act as zombies."""

    server: Server
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        with self.server.client() as client:
            client.flushall()
        self.driver = Driver(self.server.url, pool=POOL, target_load=2)
        self.driver.tick()
        self.sessions = Sessions(self.server, self.driver)
        self.sessions.limit(max_sessions=MAX_SESSIONS, max_per_tenant=MAX_PER_TENANT, timeout_s=TIMEOUT_S)
        self.works = {name: self.sessions.group(lease_s=LEASE_S) for name in GROUPS}
        self.claims: list[tuple[str, SessionClaim]] = []
        self.numbers: dict[str, int] = {}
        self.model: dict[SessionId, Model] = {}
        self.clock = 0
        """How far the lease clock has advanced, in milliseconds."""

    def do(self, awaitable: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(awaitable)

    def open_ones(self, *tenants: str) -> list[SessionId]:
        return [
            session
            for session, model in self.model.items()
            if model.ended is None and model.tenant in (tenants or TENANTS)
        ]

    @rule(tenant=st.sampled_from(TENANTS))
    def open(self, tenant: str) -> None:
        new = self.sessions.new(id=SessionId(f"{POOL}_{len(self.model):026d}"), tenant=tenant)
        tenant_full = len(self.open_ones(tenant)) >= MAX_PER_TENANT
        if tenant_full or len(self.open_ones()) >= MAX_SESSIONS:
            with pytest.raises(SessionsFullError) as refused:
                self.do(self.sessions.store.open_session(new))
            assert refused.value.reason == (TENANT_LIMIT if tenant_full else "limit")
            return
        self.do(self.sessions.store.open_session(new))
        self.model[new.id] = Model(tenant, idle_at=self.driver.now + TIMEOUT_S * 1000)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def open_again(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.model)))
        repeated = self.sessions.new(id=session, tenant=self.model[session].tenant)
        assert self.do(self.sessions.store.open_session(repeated)).end == self.model[session].ended

    @precondition(lambda self: self.model)
    @rule(
        data=st.data(), samples=st.binary(min_size=0, max_size=8), shift=st.integers(-3, 1), end=st.booleans()
    )
    def append(self, data: st.DataObject, samples: bytes, shift: int, end: bool) -> None:
        session = data.draw(st.sampled_from(sorted(self.model)))
        model = self.model[session]
        samples = samples[: len(samples) // 2 * 2]
        received = len(model.audio) // 2
        at = max(0, received + shift)
        call = self.sessions.store.append_audio(session, samples, at=at, end=end)
        if model.ended:
            with pytest.raises(SessionEndedError):
                self.do(call)
        elif at > received and not model.input_ended:
            with pytest.raises(AudioGapError):
                self.do(call)
        else:
            new = samples[(received - at) * 2 :] if not model.input_ended else b""
            record = self.do(call)
            if not model.input_ended:
                model.idle_at = self.driver.now + TIMEOUT_S * 1000
            model.audio += new
            model.input_ended |= end
            assert record.received == len(model.audio) // 2

    @rule(name=st.sampled_from(GROUPS), room=st.integers(1, 3), lags=st.booleans())
    def claim(self, name: str, room: int, lags: bool) -> None:
        waiting = [session for session in self.open_ones() if self.model[session].owner is None]
        orphans = [session for session in waiting if self.model[session].begun]
        new = [] if lags else [session for session in waiting if not self.model[session].begun]
        intake = Intake.ORPHANS if lags else Intake.ALL
        claims = take(self.works[name], name, room=room, intake=intake)
        assert [claim.lease.session for claim in claims] == [*orphans, *new][:room]
        for claim in claims:
            model = self.model[claim.lease.session]
            model.begun = True
            if model.input_ended:
                model.idle_at = self.driver.now + TIMEOUT_S * 1000
            model.owner, model.lease_end = claim.lease.token, self.clock + LEASE_S * 1000
            kept = [turn for turn in model.turns if turn.start >= model.kept]
            assert list(claim.turns) == kept
            begin = kept[0].start if kept else model.turns[-1].end if model.turns else 0
            assert (claim.audio_start, claim.audio) == (begin, model.audio[begin * 2 :])
            assert claim.segment_text == model.text
            self.claims.append((name, claim))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), keep=st.integers(0, 2), finish=st.integers(0, 9))
    def commit(self, data: st.DataObject, keep: int, finish: int) -> None:
        name, claim = data.draw(st.sampled_from(self.claims))
        token, model = claim.lease.token, self.model[claim.lease.session]
        start = model.turns[-1].end if model.turns else 0
        if start + TURN > len(model.audio) // 2:
            return
        number = self.numbers[token] = self.numbers.get(token, 0) + 1
        turn = Turn(start=start, end=start + TURN, tokens=(number,))
        keep_from = max(model.kept, start - keep * TURN)
        commit = SessionCommit(
            lease=claim.lease,
            number=number,
            events=((SessionEventType.TEXT, {"text": f"{start} "}),),
            turn=turn,
            keep_from=keep_from,
            end=SessionEnd.FINISHED if finish == 0 else None,
        )
        stale = self.works[name].commit([commit])
        if model.owner != token:
            assert stale == [claim.lease]
            return
        assert stale == []
        if finish != 0:
            assert self.works[name].commit([commit]) == []  # repeated, as after a lost reply
        model.turns.append(turn)
        model.losses = 0
        model.text += f"{start} "
        model.kept = keep_from
        if model.input_ended:
            model.idle_at = self.driver.now + TIMEOUT_S * 1000
        if finish == 0:
            self.end(model, "finished")

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), release=st.booleans())
    def renew_or_release(self, data: st.DataObject, release: bool) -> None:
        name, claim = data.draw(st.sampled_from(self.claims))
        model = self.model[claim.lease.session]
        owns = model.owner == claim.lease.token
        if release:
            self.works[name].release_sessions([claim.lease])
            if owns:
                model.owner = None
            return
        stale = self.works[name].renew_sessions(GroupId(name), [claim.lease], measured=SessionsMeasured())
        assert stale == ([] if owns else [claim.lease])
        if owns:
            model.lease_end = self.clock + LEASE_S * 1000

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.model)))
        self.do(self.sessions.store.close_session(session))
        if not self.model[session].ended:
            self.end(self.model[session], "closed")

    @rule(ms=st.sampled_from([1, 500, 2000]))
    def pass_time(self, ms: int) -> None:
        self.driver.now += ms
        self.clock += ms
        self.driver.tick()
        for session in self.open_ones():
            model = self.model[session]
            if model.owner and model.lease_end <= self.clock:
                self.lose(model)
            if model.ended is not None or model.idle_at > self.driver.now:
                continue
            if model.input_ended and model.owner is None:
                model.idle_at = self.driver.now + TIMEOUT_S * 1000
            else:
                self.end(model, "idle")

    def lose(self, model: Model) -> None:
        model.owner = None
        consumed = model.turns[-1].end if model.turns else 0
        if len(model.audio) // 2 > consumed or model.input_ended:
            model.losses += 1
        if model.losses > SESSION_LOSSES_MAX:
            self.end(model, "failed")

    @staticmethod
    def end(model: Model, reason: str) -> None:
        model.ended, model.owner = reason, None

    @invariant()
    def texts_are_those_of_the_events(self) -> None:
        assert [r.session.id for r in self.do(self.sessions.store.sessions(POOL))] == self.open_ones()
        for tenant in TENANTS:
            own = self.do(self.sessions.store.sessions(POOL, tenant=tenant))
            assert [r.session.id for r in own] == self.open_ones(tenant)
        for session, model in self.model.items():
            events = self.do(self.sessions.store.session_events(session))
            texts = "".join(event.data["text"] for event in events if event.type is SessionEventType.TEXT)
            assert texts == model.text
            record = self.do(self.sessions.get(session, tenant=model.tenant))
            assert record.end == model.ended
            assert record.last_event == (events[-1].id if events else "0-0")

    def teardown(self) -> None:
        self.do(self.sessions.close())
        check_keys(self.driver.client)
        self.driver.close()


@pytest.fixture
def machine(server: Server) -> Iterator[type[SessionMachine]]:
    loop = asyncio.new_event_loop()
    yield type("Machine", (SessionMachine,), {"server": server, "loop": loop})
    loop.close()


def test_the_journal_agrees_with_the_model(machine: type[SessionMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
