"""Checks that the keys of streaming sessions agree with each other."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from daybreak_server.adapters.redis.key_names import Keys

JOURNAL = ("session", "session_audio", "session_turns", "session_text", "session_history")
"""The keys of a session. Once the session has ended, they have a TTL or are deleted."""


def check_sessions(client: redis.Redis, keys: Keys, members: Mapping[str, set[str]]) -> None:
    """Assert that records, sets and journals agree about each session."""
    sessions = members.get("session", set())
    for family in JOURNAL:
        orphans = members.get(family, set()) - sessions
        assert not orphans, f"{family} without a record: {orphans}"
    records = {session: _fields(client, keys.of("session", session)) for session in sessions}
    by_state = {
        state: {session for session, record in records.items() if record["state"] == state}
        for state in ("waiting", "active", "ended")
    }
    held = {
        name: {member.decode() for member in client.zrange(keys.single(name), 0, -1)}
        for name in ("sessions", "sessions_waiting", "session_leases", "session_timers")
    }
    assert held["sessions"] == by_state["waiting"] | by_state["active"] == held["session_timers"]
    assert held["sessions_waiting"] == by_state["waiting"]
    assert held["session_leases"] == by_state["active"]
    tenants = {records[session]["tenant"] for session in held["sessions"]}
    for tenant in tenants | members.get("tenant_sessions", set()):
        own = {member.decode() for member in client.zrange(keys.of("tenant_sessions", tenant), 0, -1)}
        assert own == {session for session in held["sessions"] if records[session]["tenant"] == tenant}
    owners = _fields(client, keys.single("session_tenants"))
    assert owners == {session: records[session]["tenant"] for session in held["sessions"]}
    for group in members.get("group_sessions", set()):
        owned = {member.decode() for member in client.smembers(keys.of("group_sessions", group))}
        assert owned == {session for session, record in records.items() if record.get("group") == group}
    for session, record in records.items():
        ended = record["state"] == "ended"
        assert ("token" in record) == ("group" in record) == (record["state"] == "active"), record
        for family in JOURNAL:
            ttl = client.ttl(keys.of(family, session))
            assert ttl == -2 or (ttl >= 0) == ended, f"{family} of the {record['state']} {session}: TTL {ttl}"


def _fields(client: redis.Redis, key: str) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in client.hgetall(key).items()}
