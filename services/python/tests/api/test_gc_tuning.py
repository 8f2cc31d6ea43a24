"""Full collections are rare in a gateway. That is right only while nothing that ends leaves a reference cycle."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
from collections import Counter

from api_support import Api, Worker

from testkit.waiting import wait_until

STREAMS = 400


def test_a_stream_that_ends_leaves_nothing_to_collect(api: Api, worker: Worker) -> None:
    """Four hundred clients connect, see an event and disconnect: reference counts alone free everything."""
    task = api.submit()["id"]
    worker.progress(worker.claim(), 1, 2)
    address = ("127.0.0.1", int(api.url.rpartition(":")[2]))
    request = f"GET /v1/tasks/{task}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    _read(address, request, 5)
    _none_open(api)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        _read(address, request, STREAMS)
        _none_open(api)
        gc.collect()
        found = Counter(type(item) for item in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    # Other code in this process may leave some, but not one for each stream.
    left = {kind: count for kind, count in found.items() if count >= STREAMS}
    assert not left, f"objects of {STREAMS} streams were only reachable from each other: {left}"


def test_a_gateway_collects_rarely() -> None:
    """Existing objects are not examined again, and a full collection waits for millions of new ones."""
    code = (
        "import gc; from daybreak_server.api.background.gc_tuning import tune_gc; tune_gc(); "
        "young, middle, full = gc.get_threshold(); "
        "assert young * middle * full > 1_000_000; assert gc.get_freeze_count() > 1_000"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _read(address: tuple[str, int], request: bytes, count: int) -> None:
    opened = [socket.create_connection(address, timeout=60) for _ in range(count)]
    for connection in opened:
        connection.sendall(request)
    for connection in opened:
        seen = b""
        while b"event: progress" not in seen:
            seen += connection.recv(65536)
        connection.close()


def _none_open(api: Api) -> None:
    registry, labels = api.context.metrics.registry, {"kind": "sse"}
    wait_until(
        lambda: registry.get_sample_value("daybreak_stream_subscribers", labels) == 0, 60, "no open stream"
    )
