"""The transport of the fault tests' clients spreads requests over the gateways, loses responses, and cuts streams."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence

import httpx2


class BalancedTransport(httpx2.AsyncBaseTransport):
    """Sends each request to a random gateway, as a Kubernetes Service would.

    For each idempotency key in ``lose``, it drops one response that a gateway has sent. At each chunk of a stream of
    events, it cuts the stream with probability ``cut``: before the chunk, or in the middle of it.
    """

    def __init__(self, urls: Sequence[str], *, seed: int, cut: float = 0.0) -> None:
        self._hosts = [httpx2.URL(url) for url in urls]
        self._draw = random.Random(f"{seed}/network")
        self._inner = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=None))
        self.cut = cut
        self.lose: set[str] = set()
        self.cuts = 0
        self.lost = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # Requests to other hosts (S3) pass unchanged.
        if any((host.host, host.port) == (request.url.host, request.url.port) for host in self._hosts):
            host = self._draw.choice(self._hosts)
            request.url = request.url.copy_with(host=host.host, port=host.port)
        response = await self._inner.handle_async_request(request)
        key = request.headers.get("Idempotency-Key")
        if key in self.lose:
            self.lose.discard(key)
            self.lost += 1
            await response.aread()
            await response.aclose()
            raise httpx2.ReadError("the fault tests dropped the response")
        if self.cut and request.url.path.endswith("/events"):
            return httpx2.Response(
                response.status_code, headers=response.headers, stream=_Cut(response, self), request=request
            )
        return response

    def cuts_now(self) -> bool:
        """Whether to cut a stream at this chunk."""
        if self._draw.random() < self.cut:
            self.cuts += 1
            return True
        return False

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Cut(httpx2.AsyncByteStream):
    def __init__(self, response: httpx2.Response, network: BalancedTransport) -> None:
        self._response = response
        self._network = network

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._response.aiter_raw():
            if self._network.cuts_now():
                if self._network._draw.random() < 0.5:
                    yield chunk[: len(chunk) // 2]  # in the middle of an event
                raise httpx2.ReadError("the fault tests cut the stream")
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()
