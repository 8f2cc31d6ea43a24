"""A gateway rarely runs a full garbage collection.

This is safe only if requests and streams leave no reference cycles behind when they end.
"""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
from collections import Counter

from api_support import Api, FakeLeader

from testkit.waiting import wait_until

STREAMS = 400


def test_a_stream_that_ends_leaves_nothing_to_collect(api: Api, leader: FakeLeader) -> None:
    """400 clients connect, receive an event and disconnect, and reference counts alone free everything."""
    task = api.submit()["id"]
    leader.progress(leader.claim(), 1, 2)
    address = ("127.0.0.1", int(api.url.rpartition(":")[2]))
    request = f"GET /v1/tasks/{task}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    _read(address, request, 5)
    _wait_until_closed(api)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        _read(address, request, STREAMS)
        _wait_until_closed(api)
        gc.collect()
        garbage = Counter(type(item) for item in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    # Other code in this process may leave some objects, but fewer of each type than there were streams.
    leaked = {kind: count for kind, count in garbage.items() if count >= STREAMS}
    assert not leaked, f"objects of {STREAMS} streams were only reachable from each other: {leaked}"


def test_a_gateway_collects_rarely() -> None:
    """Existing objects are not examined again, and a full collection waits for more than a million new objects."""
    code = (
        "import gc; from daybreak_server.api.background.gc_tuning import tune_gc; tune_gc(); "
        "young, middle, full = gc.get_threshold(); "
        "assert young * middle * full > 1_000_000; assert gc.get_freeze_count() > 1_000"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _read(address: tuple[str, int], request: bytes, count: int) -> None:
    connections = [socket.create_connection(address, timeout=60) for _ in range(count)]
    for connection in connections:
        connection.sendall(request)
    for connection in connections:
        received = b""
        while b"event: progress" not in received:
            received += connection.recv(65536)
        connection.close()


def _wait_until_closed(api: Api) -> None:
    registry, labels = api.context.metrics.registry, {"kind": "sse"}
    wait_until(
        lambda: registry.get_sample_value("daybreak_stream_subscribers", labels) == 0, 60, "no open stream"
    )
