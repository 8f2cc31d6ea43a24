"""mosec: ``python -m …mosec_app --port PORT …``. Its HTTP server is a Rust program. The model is in a worker
process."""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker

from verification.benchmarks.embedding.apps.common import Encoder, answer, max_batch, text_of, wait_s


class Embed(Worker):
    """The only stage of the server. ``forward`` gets a batch of requests, and returns an answer for each."""

    def __init__(self) -> None:
        """Load the model in the worker process."""
        super().__init__()
        self.encoder = Encoder()

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An answer for each request."""
        wanted = [text_of(body) for body in data]
        vectors = self.encoder.encode([text for text, _ in wanted])
        return [answer(vector, as_base64) for vector, (_, as_base64) in zip(vectors, wanted, strict=True)]


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Embed, num=1, max_batch_size=max_batch(), max_wait_time=round(1000 * wait_s()), route="/v1/embeddings"
    )
    server.run()
