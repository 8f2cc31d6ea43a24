"""The worker's side of the protocol with its gateway: three calls, and what their answers mean.

::

    GatewayError
    ├─ GatewayUnavailableError     no usable answer, or an error that may be temporary, such as a 5xx: try again
    ├─ WorkerForgottenError        404: register again
    └─ RefusedError                a permanent 4xx, for example because another worker has the id
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import ValidationError

from daybreak.wire import WorkerAssignments, WorkerHeartbeat, WorkerRegistered, WorkerRegistration
from daybreak_server.ports.upstreams import NoAnswerError, UpstreamError, UpstreamRequest, Upstreams

TIMEOUT_S = 10.0
_MAX_BYTES = 16 << 20
_MAX_DETAIL = 500
_Reply = TypeVar("_Reply", WorkerRegistered, WorkerAssignments)


class GatewayError(Exception):
    """A call failed. The message says why."""


class GatewayUnavailableError(GatewayError):
    """The gateway cannot be reached, or cannot do its work now."""


class WorkerForgottenError(GatewayError):
    """The gateway does not know the worker (any more)."""


class RefusedError(GatewayError):
    """The gateway refuses the worker, and will refuse it again."""


class GatewayClient:
    """Calls one gateway. ``url`` may have a path, below which a proxy serves the gateway."""

    def __init__(
        self, url: str, *, token: str | None, upstreams: Upstreams, timeout_s: float = TIMEOUT_S
    ) -> None:
        parts = urlsplit(url)
        self.url = url
        self._endpoint = f"{parts.scheme}://{parts.netloc}"
        self._prefix = parts.path.rstrip("/")
        self._headers = [(b"content-type", b"application/json"), (b"accept", b"application/json")]
        if token is not None:
            self._headers.append((b"authorization", b"Bearer " + token.encode()))
        self._upstreams = upstreams
        self._timeout_s = timeout_s

    async def register(self, worker: WorkerRegistration) -> WorkerRegistered:
        """Register the worker. :raises GatewayError:"""
        answer = await self._call(b"POST", "/v1/workers", worker.model_dump_json().encode())
        return _read(WorkerRegistered, answer)

    async def heartbeat(self, worker: str, heartbeat: WorkerHeartbeat) -> WorkerAssignments:
        """Send a heartbeat. :returns: what the worker should run. :raises GatewayError:"""
        body = heartbeat.model_dump_json(exclude_none=True).encode()
        return _read(WorkerAssignments, await self._call(b"PUT", _path(worker), body))

    async def deregister(self, worker: str, incarnation: str) -> None:
        """Say that the worker has ended. :raises GatewayError:"""
        await self._call(b"DELETE", f"{_path(worker)}?incarnation={quote(incarnation)}", b"")

    async def _call(self, method: bytes, path: str, body: bytes) -> bytes:
        request = UpstreamRequest(
            method=method,
            target=(self._prefix + path).encode(),
            headers=self._headers,
            body=body,
            length=len(body),
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                status, answer = await self._send(request)
        except TimeoutError:
            raise GatewayUnavailableError(f"{self.url} did not answer within {self._timeout_s:g} s") from None
        except UpstreamError as exc:
            raise GatewayUnavailableError(f"{self.url} cannot be reached: {exc}") from exc
        if 200 <= status < 300:
            return answer
        message = (
            f"{self.url} answers {method.decode()} {path.partition('?')[0]} with {status}: {_detail(answer)}"
        )
        if status == 404:
            raise WorkerForgottenError(message)
        if status in (400, 401, 403, 405, 409, 413, 422):
            raise RefusedError(message)
        raise GatewayUnavailableError(message)

    async def _send(self, request: UpstreamRequest) -> tuple[int, bytes]:
        try:
            answer = await self._upstreams.send(self._endpoint, request)
        except NoAnswerError as exc:
            if not exc.stale:
                raise
            answer = await self._upstreams.send(self._endpoint, request)  # all calls are safe to repeat
        try:
            parts, size = [], 0
            while part := await answer.read():
                parts.append(part)
                size += len(part)
                if size > _MAX_BYTES:
                    raise GatewayUnavailableError(
                        f"the answer of {self.url} is larger than {_MAX_BYTES} bytes"
                    )
            return answer.status, b"".join(parts)
        finally:
            answer.close()


def _path(worker: str) -> str:
    return f"/v1/workers/{quote(worker, safe='')}"


def _read(kind: type[_Reply], answer: bytes) -> _Reply:
    try:
        return kind.model_validate_json(answer)
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise GatewayUnavailableError(
            f"the answer of the gateway cannot be used: {where}: {problem['msg']}"
        ) from None


def _detail(answer: bytes) -> str:
    """The error message in an answer. If the answer has neither OpenAI's format nor problem+json: its beginning."""
    try:
        found: Any = json.loads(answer)
        error = found.get("error")
        detail = error["message"] if isinstance(error, dict) else found["detail"]
        return str(detail)[:_MAX_DETAIL]
    except (ValueError, KeyError, AttributeError, TypeError):
        return answer[:_MAX_DETAIL].decode(errors="replace").strip() or "no reason"
