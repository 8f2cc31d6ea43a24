"""How a request ends when another rank of its group dies, and when the request itself fails."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import asdict

import pytest

from daybreak_server.engines.common.errors import GroupBrokenError
from daybreak_server.engines.ranks.channel import Channel
from daybreak_server.engines.ranks.consensus import RankReport, Status
from daybreak_server.engines.ranks.control_group import Followers
from daybreak_server.engines.serving.exchange import Exchange, Stop
from daybreak_server.engines.serving.request_run import RequestRun
from daybreak_server.workloads.echo_serve.workload import EchoServe
from daybreak_server.workloads.serving import Request

FOLLOWERS_ERROR = RankReport(point=5, status=Status.FAILED, code="workload_failed", message="of the request")


@pytest.mark.parametrize(
    ("last_words", "stopped", "failed"),
    [(None, Stop.BROKEN, None), (FOLLOWERS_ERROR, None, "workload_failed")],
)
async def test_the_death_of_a_rank_is_no_error_of_the_request(
    last_words: RankReport | None, stopped: Stop | None, failed: str | None
) -> None:
    """A follower receives the request and dies.

    In the second case, the follower first reports an error, at a point of the lockstep that the leader has not reached.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        follower = Channel(socket.create_connection(server.getsockname()))
        control_group = Followers({1: Channel(server.accept()[0])}, grace_s=0.2)

    def follow() -> None:
        follower.receive()
        if last_words is not None:
            follower.send("report", **asdict(last_words))
            follower.receive()
        follower.close()

    exchange = Exchange(
        Request(method="POST", path="/"), loop=asyncio.get_running_loop(), on_left=lambda _: None
    )
    dying = threading.Thread(target=follow)
    dying.start()
    with pytest.raises(GroupBrokenError):
        await asyncio.to_thread(RequestRun(EchoServe(), control_group, lockstep=True).answer, exchange)
    control_group.close()
    dying.join(60)
    assert exchange.stopped is stopped
    assert (exchange.failed.code if exchange.failed else None) == failed
