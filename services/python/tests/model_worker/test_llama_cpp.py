"""A worker with a real llama.cpp server and a real model, SmolLM2-135M."""

from __future__ import annotations

import json
from collections.abc import Callable

import psutil
import pytest

from testkit import llama
from testkit.processes import alive
from testkit.waiting import wait_until
from testkit.workers import WorkerGateway, WorkerProcess

pytestmark = pytest.mark.skipif(
    llama.model_file() is None, reason=f"a llama.cpp server is not installed: {llama.INSTALL}"
)
PATH = "/v1/chat/completions"


def test_a_worker_serves_a_real_model(
    gateway: WorkerGateway, start_worker: Callable[..., WorkerProcess]
) -> None:
    smol = {
        "alias": "smol",
        "source": str(llama.model_file()),
        "engine": "llama.cpp",
        "args": {"ctx_size": 512},
    }
    gateway.want("w1", {**smol, "memory_bytes": 400 << 20})
    worker = start_worker(engines={"llama.cpp": {"command": llama.engine_command()}})
    gateway.wait_for("w1", "smol", "ready")
    question = {"model": "smol", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    with worker.client() as client:
        whole = client.post(
            PATH, json={**question, "max_tokens": 16, "temperature": 0, "cache_prompt": False}, timeout=120
        ).json()
        text = whole["choices"][0]["message"]["content"]
        assert whole["model"] == "smol"
        assert whole["usage"]["completion_tokens"] > 4

        body = {**question, "max_tokens": 16, "temperature": 0, "cache_prompt": False, "stream": True}
        with client.stream("POST", PATH, json=body, timeout=120) as answer:
            events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        assert events[-1] == "[DONE]"
        chunks = [json.loads(event) for event in events[:-1]]
        assert len(chunks) > 4
        streamed = "".join(
            chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]
        )
        assert streamed == text

        engine = psutil.Process(worker.process.pid).children(recursive=True)[-1]
        endless = {**question, "max_tokens": 400, "stream": True, "ignore_eos": True}
        with client.stream("POST", PATH, json=endless, timeout=120) as answer:
            parts = answer.iter_raw()
            next(parts)
        wait_until(lambda: gateway.last("w1").models[0].requests == 0, 60, "the cancelled request to end")
        wait_until(lambda: is_idle(engine), 60, "the engine to stop its work")
    worker.kill()
    wait_until(lambda: not alive(engine), 60, "the engine to end")


def is_idle(process: psutil.Process) -> bool:
    """Whether a process uses less than a fifth of a core for half a second."""
    return process.cpu_percent(interval=0.5) < 20
