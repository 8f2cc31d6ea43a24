"""Parts of a response that are written in one iteration of the event loop reach the kernel together."""

from __future__ import annotations

import asyncio
from typing import Any

from daybreak_server.api.http.gathered_writes import MAX_BYTES, GatheringTransport


class Kernel(asyncio.Transport):
    """Records the calls that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.calls.append(bytes(data))

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


async def _gathering(kernel: Kernel | None = None) -> tuple[GatheringTransport, list[Any]]:
    kernel = kernel or Kernel()
    return GatheringTransport(kernel, asyncio.get_running_loop()), kernel.calls


async def test_a_head_and_a_body_are_one_write() -> None:
    transport, calls = await _gathering()
    transport.write(b"head")
    transport.write(b"body")
    assert calls == []
    await asyncio.sleep(0)
    assert calls == [b"headbody"]


async def test_parts_of_different_iterations_are_sent_as_they_come() -> None:
    transport, calls = await _gathering()
    for part in (b"1", b"2"):
        transport.write(part)
        await asyncio.sleep(0)
    assert calls == [b"1", b"2"]


async def test_what_is_written_before_a_close_is_sent() -> None:
    transport, calls = await _gathering()
    transport.write(b"last")
    transport.close()
    await asyncio.sleep(0)
    assert calls == [b"last", "close"]


async def test_an_aborted_connection_sends_nothing() -> None:
    transport, calls = await _gathering()
    transport.write(b"lost")
    transport.abort()
    await asyncio.sleep(0)
    assert calls == ["abort"]


async def test_nothing_is_written_to_a_connection_that_has_ended() -> None:
    """A write to such a connection would raise an error in uvloop."""
    kernel = Kernel()
    transport, calls = await _gathering(kernel)
    transport.write(b"late")
    kernel.closing = True
    await asyncio.sleep(0)
    transport.close()
    assert calls == ["close"]


async def test_much_is_written_at_once_so_that_the_transport_can_pause_its_writer() -> None:
    transport, calls = await _gathering()
    transport.write(b"x" * MAX_BYTES)
    assert calls == []
    transport.write(b"y")
    assert calls == [b"x" * MAX_BYTES + b"y"]
