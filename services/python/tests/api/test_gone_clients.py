"""Clients that have reset their connections before the gateway reads their requests."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from api_support import Api

RESET = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing a socket resets its connection."""


@contextmanager
def stopped(api: Api) -> Iterator[None]:
    """The event loop of the gateway stands still. The kernel still accepts connections and their bytes."""
    entered, release = threading.Event(), threading.Event()

    def stand_still() -> None:
        entered.set()
        release.wait(60)

    api.server.servers[0].get_loop().call_soon_threadsafe(stand_still)
    assert entered.wait(60)
    try:
        yield
    finally:
        release.set()


def send_and_reset(api: Api, tenant: str) -> None:
    body = json.dumps({"pool": "echo", "input": {"message": "hi"}}).encode()
    head = (
        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"daybreak-tenant: {tenant}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", api.client.base_url.port)) as connection:
        connection.sendall(head.encode() + body)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_a_tenant_that_has_reset_its_connection_submits_nothing_as_another_tenant(api: Api) -> None:
    """The kernel no longer knows the address of such a client, so the gateway cannot know that the client is local."""
    with stopped(api):
        for _ in range(20):
            send_and_reset(api, "acme")
    for _ in range(20):
        api.submit(headers={"Daybreak-Tenant": "acme"})
    assert api.client.get("/v1/tasks").json()["data"] == []
