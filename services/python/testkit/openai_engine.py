"""A tiny model server with OpenAI's API (chat, text completions, embeddings). Its options and the fields of a request
determine how it behaves.

Options:

* ``--load-s``: the seconds until it is healthy;
* ``--broken FILE``: exit with code 3 at the start if FILE exists;
* ``--daemon``: start a process in another POSIX session. This process has no environment, loses its parent and
  ignores SIGTERM;
* ``--deaf``: ignore SIGTERM;
* ``--log FILE``: write a log to FILE. The last paragraph describes it.

Fields of a request:

* ``tokens``: the number of tokens in the answer; ``pause``: seconds before each of them;
* ``stream``: whether the answer is a stream; ``size``: the number of characters in each token of a
  stream; ``until``: the path of a file that must exist before a stream ends;
* ``crash``: end the process ``before`` the answer, or ``within`` a stream, after its first token; ``status``: answer
  with an error of this status.

The log has a line for each event: ``pid N``, ``daemon N``, ``begin ID``, ``token ID`` (of a stream), and ``end ID``, or
``gone ID`` if the client left before the end. ID is the request's ``X-Request-Id``, or ``-``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn


class Engine:
    """The ASGI application. Its log and its health follow the options."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.healthy_at = time.monotonic() + options.load_s

    def note(self, line: str) -> None:
        with Path(self.options.log).open("a") as log:
            log.write(line + "\n")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/health":
            await _send(send, 200 if time.monotonic() >= self.healthy_at else 503, {})
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        name = headers.get("x-request-id", "-")
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        wanted = json.loads(body) if body[:1] == b"{" else {}
        self.note(f"begin {name}")
        gone = asyncio.create_task(receive())
        try:
            await self._answer(scope, send, wanted, headers, len(body), name, gone)
        except _GoneError:
            self.note(f"gone {name}")
        else:
            self.note(f"end {name}")
        finally:
            gone.cancel()

    async def _answer(
        self, scope: Any, send: Any, wanted: Any, headers: Any, size: int, name: str, gone: asyncio.Task[Any]
    ) -> None:
        tokens, pause = int(wanted.get("tokens", 1)), float(wanted.get("pause", 0))
        if wanted.get("crash") == "before":
            os._exit(9)
        if status := wanted.get("status"):
            error = {
                "message": "The engine refuses this.",
                "type": "engine_error",
                "param": None,
                "code": None,
            }
            await _send(send, status, {"error": error})
            return
        chat = not scope["path"].endswith(("/v1/completions", "/v1/embeddings"))
        if not wanted.get("stream"):
            for _ in range(tokens):
                await _pause(pause, gone)
            text = "word " * tokens
            if scope["path"].endswith("/v1/embeddings"):
                answer = _embeddings(wanted["input"])
            elif chat:
                answer = _chat({"message": {"role": "assistant", "content": text}})
            else:
                answer = {"object": "text_completion", "choices": [{"index": 0, "text": text}]}
            about = {
                "id": "1",
                "created": 1,
                "model": self.options.alias,
                "usage": {"completion_tokens": tokens},
            }
            await _send(send, 200, {**about, **answer, "seen": _seen(scope, headers, size)})
            return
        start = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": start})
        for number in range(tokens):
            await _pause(pause, gone)
            text = "x" * int(wanted.get("size", 1))
            content = {"delta": {"content": text}} if chat else {"text": text}
            chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, **content}]}
            await send(
                {
                    "type": "http.response.body",
                    "body": b"data: %b\n\n" % json.dumps(chunk).encode(),
                    "more_body": True,
                }
            )
            self.note(f"token {name}")
            if wanted.get("crash") == "within" and number == 0:
                await asyncio.sleep(0.2)  # let the first token reach the client
                os._exit(9)
        while not _may_end(wanted):
            await _pause(0.02, gone)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


def _seen(scope: Any, headers: dict[str, str], size: int) -> dict[str, Any]:
    """What the engine sees of a request."""
    return {
        "pid": os.getpid(),
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "headers": headers,
        "size": size,
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def _chat(choice: dict[str, Any]) -> dict[str, Any]:
    return {"object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop", **choice}]}


def _embeddings(texts: list[str]) -> dict[str, Any]:
    """Vectors of two numbers: the length of the text, and the length of its first word."""
    vectors = [[float(len(text)), float(len(text.split()[0]))] for text in texts]
    data = [
        {"object": "embedding", "index": index, "embedding": found} for index, found in enumerate(vectors)
    ]
    return {"object": "list", "data": data}


class _GoneError(Exception):
    pass


def _may_end(wanted: Any) -> bool:
    return "until" not in wanted or os.path.exists(wanted["until"])


async def _pause(seconds: float, gone: asyncio.Task[Any]) -> None:
    if seconds:
        await asyncio.wait({gone}, timeout=seconds)
    else:
        await asyncio.sleep(0)
    if gone.done():
        raise _GoneError


async def _send(send: Any, status: int, answer: Any) -> None:
    body = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _leave_daemon(engine: Engine) -> None:
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid:
            os.write(write, b"%d\n" % pid)
            os._exit(0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.execve("/bin/sleep", ["sleep", "600"], {})
    engine.note(f"daemon {int(os.read(read, 20))}")


def main() -> None:
    """Serve as the options say. Exits with 3 if the file of ``--broken`` exists."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", default="-")
    parser.add_argument("--source", default="-")
    parser.add_argument("--log", required=True)
    parser.add_argument("--load-s", type=float, default=0)
    parser.add_argument("--broken", type=Path)
    parser.add_argument("--daemon", action="store_true")
    parser.add_argument("--deaf", action="store_true")
    options = parser.parse_args()
    engine = Engine(options)
    engine.note(f"pid {os.getpid()}")
    print(f"loading {options.source} as {options.alias}", flush=True)
    if options.daemon:
        _leave_daemon(engine)
    if options.broken is not None and options.broken.exists():
        print("CUDA out of memory, as it were", file=sys.stderr, flush=True)
        sys.exit(3)
    config = uvicorn.Config(
        engine, host=options.host, port=options.port, log_level="warning", lifespan="off", access_log=False
    )
    server = uvicorn.Server(config)
    if options.deaf:
        server.handle_exit = lambda *_: None  # type: ignore[method-assign]
    server.run()


if __name__ == "__main__":
    main()
