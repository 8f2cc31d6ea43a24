"""The server under evaluation: its pool, how its groups form batches, and the batches that they have run."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import httpx2

from daybreak import ApiError, AsyncClient
from daybreak_server.cli.sessions.evaluation import figures

_BATCH_FIELDS = ("strategy", "max_batch_size", "batch_timeout_ms")


class EvaluationError(Exception):
    """The evaluation is not possible. The message says why."""


class PoolUnderTest:
    """A pool of a server."""

    def __init__(self, client: AsyncClient, http: httpx2.AsyncClient, name: str, workload: str) -> None:
        self.client = client
        self._http = http
        self.name = name
        self.workload = workload

    @classmethod
    async def find(cls, client: AsyncClient, http: httpx2.AsyncClient, name: str | None) -> PoolUnderTest:
        """The named pool, or the only one of the kind ``sessions``.

        :raises EvaluationError: if there is no such pool, or if there are several and ``name`` is ``None``.
        """
        pools = [pool for pool in await client.pools() if pool.kind == "sessions"]
        named = [pool for pool in pools if name in {None, pool.name}]
        have = ", ".join(pool.name for pool in pools)
        if not pools:
            raise EvaluationError(
                "no pool of the server serves sessions. Add one to its settings, for example with the workload `speech`"
            )
        if not named:
            raise EvaluationError(
                f"the server has no pool {name!r} for sessions. Choose one with --pool: {have}"
            )
        if len(named) > 1:
            raise EvaluationError(
                f"the server has several pools for sessions. Choose one with --pool: {have}"
            )
        return cls(client, http, named[0].name, named[0].workload)

    async def code_of(self, language: str) -> str:
        """The code of a language that is given by its code or its name. An unknown language is returned as it is; the
        server refuses it."""
        with suppress(ApiError):  # an older server does not list its pools as models
            for pair in (await self.client.models.get(self.name)).pairs or ():
                if language.strip().lower() in {pair.target.lower(), pair.target_name.lower()}:
                    return pair.target
        return language

    async def healthy(self) -> bool:
        """Whether the server answers its health route."""
        return (await self._http.get("/health")).status_code == httpx2.codes.OK

    async def batches(self) -> dict[str, dict[int, int]]:
        """The batches that the groups have run. Groups publish them each second.

        :raises EvaluationError: if the server does not show them.
        """
        return figures.total(group["batches"] for group in (await self._stats())["groups"])

    async def batching(self) -> dict[str, Any]:
        """How the groups form batches. :raises EvaluationError: if the server does not show it."""
        configuration = (await self._stats())["configuration"]
        return {name: configuration[name] for name in _BATCH_FIELDS}

    async def configure(self, **fields: Any) -> None:
        """Change how the groups form batches. The groups apply the change within about two seconds.

        :raises EvaluationError: if the server refuses the change.
        """
        answer = await self._http.post("/ray/configure", json={"pool": self.name, **fields})
        if answer.is_error:
            raise EvaluationError(f"the server refuses to change its batches: {answer.text}")

    async def _stats(self) -> dict[str, Any]:
        answer = await self._http.get("/ray/stats", params={"pool": self.name})
        if answer.is_error:
            raise EvaluationError(f"the server does not show its batches: {answer.text}")
        found: dict[str, Any] = answer.json()
        return found
