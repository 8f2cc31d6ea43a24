"""The client of the demo: asks models through OpenAI's API, and reads their states."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from daybreak_server.local.child_up import DemoError

WAIT_S = 120.0
"""How long the demo waits for an answer or a state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """One answer, or the part of it that arrived."""

    model: str
    """The alias of the model that answered."""
    worker: str
    tokens: int
    seconds: float
    complete: bool = True
    """``False`` if the answer broke off before its end."""


class Chat:
    """A client of one gateway. Threads may share it.

    A request raises :class:`DemoError` if the gateway refuses it.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(base_url=url, timeout=WAIT_S, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def register(self, **model: Any) -> None:
        """Register a model."""
        _checked(self._client.post("/v1/models/register", json=model))

    def model(self, alias: str) -> Mapping[str, Any]:
        """What the gateway says about a model."""
        shown: Mapping[str, Any] = _checked(self._client.get(f"/v1/models/{alias}")).json()
        return shown

    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """The workers that hold their lease, by id."""
        shown = _checked(self._client.get("/v1/workers")).json()["workers"]
        return {worker["id"]: worker for worker in shown}

    def requests_at(self, worker: str) -> int:
        """How many requests a worker has now."""
        models = self.workers().get(worker, {}).get("models", ())
        return sum(model["requests"] for model in models)

    def ask(self, alias: str, question: str, *, tokens: int) -> ChatAnswer:
        """Ask for an answer of exactly ``tokens`` tokens, and wait for all of it."""
        began = time.monotonic()
        response = _checked(
            self._client.post("/v1/chat/completions", json=_body(alias, question, tokens, ignore_eos=True))
        )
        return ChatAnswer(
            model=response.headers["daybreak-model"],
            worker=response.headers["daybreak-worker"],
            tokens=response.json()["usage"]["completion_tokens"],
            seconds=time.monotonic() - began,
        )

    def stream(self, alias: str, question: str, *, tokens: int, **options: Any) -> Stream:
        """Ask, and wait for the first byte of the answer."""
        request = self._client.build_request(
            "POST", "/v1/chat/completions", json=_body(alias, question, tokens, stream=True, **options)
        )
        return Stream(self._client.send(request, stream=True))


class Stream:
    """An answer that arrives word by word.

    :raises DemoError: if the gateway refuses the request.
    """

    def __init__(self, response: httpx2.Response) -> None:
        if response.status_code != 200:
            response.read()
        _checked(response)
        self._response = response
        self._began = time.monotonic()
        self.model: str = response.headers["daybreak-model"]
        self.worker: str = response.headers["daybreak-worker"]
        self.tokens = 0
        self.complete = False

    def words(self) -> Iterator[str]:
        """The parts of the text, as they arrive. If the answer breaks off, :attr:`complete` stays false."""
        try:
            for line in self._response.iter_lines():
                if line == "data: [DONE]":
                    self.complete = True
                elif line.startswith("data: "):
                    choices = json.loads(line.removeprefix("data: ")).get("choices") or [{}]
                    if text := choices[0].get("delta", {}).get("content"):
                        self.tokens += 1
                        yield text
        except httpx2.TransportError:
            self.complete = False
        finally:
            self._response.close()

    def rest(self) -> ChatAnswer:
        """Read the rest of the answer."""
        for _ in self.words():
            pass
        return ChatAnswer(
            model=self.model,
            worker=self.worker,
            tokens=self.tokens,
            seconds=time.monotonic() - self._began,
            complete=self.complete,
        )


def _body(alias: str, question: str, tokens: int, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": alias, "messages": messages, "max_tokens": tokens, "temperature": 0, **options}


def _checked(response: httpx2.Response) -> httpx2.Response:
    if response.status_code < 400:
        return response
    request = response.request
    raise DemoError(
        f"{request.method} {request.url.path} was answered {response.status_code}: {response.text[:500]}"
    )
