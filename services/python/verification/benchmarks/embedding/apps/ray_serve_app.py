"""Ray Serve: ``python -m …ray_serve_app PORT FOLDER``. ``@serve.batch`` makes batches of the calls of one replica."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from verification.benchmarks.embedding.apps.common import Encoder, answer, max_batch, text_of, wait_s


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Embed:
    """The deployment of one model."""

    def __init__(self) -> None:
        """Load the model, in the replica."""
        self.encoder = Encoder()

    @serve.batch(max_batch_size=max_batch(), batch_wait_timeout_s=wait_s())
    async def embed(self, texts: list[str]) -> list[Any]:
        """A vector for each text."""
        return list(self.encoder.encode(texts))

    async def __call__(self, request: Request) -> dict[str, Any]:
        """The answer to one request."""
        text, as_base64 = text_of(await request.json())
        return answer(await self.embed(text), as_base64)


if __name__ == "__main__":
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        _temp_dir=sys.argv[2],
        runtime_env={
            "env_vars": {name: os.environ[name] for name in os.environ if name.startswith("BENCH_")}
        },
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(
        Embed.bind(),  # type: ignore[attr-defined]
        name="embed",
        route_prefix="/v1/embeddings",
    )
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
