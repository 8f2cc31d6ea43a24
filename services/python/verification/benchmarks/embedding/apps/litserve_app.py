"""LitServe: ``python -m …litserve_app PORT``. ``predict`` gets the list of a batch and returns an item for each."""

from __future__ import annotations

import sys
from typing import Any

import litserve as ls

from verification.benchmarks.embedding.apps.common import Encoder, answer, max_batch, text_of, wait_s


class Embed(ls.LitAPI):
    """The API of one model."""

    def setup(self, device: str) -> None:
        """Load the model, in the worker."""
        self.encoder = Encoder()

    def decode_request(self, request):  # LitServe takes an annotation for the type of a query parameter
        """The text."""
        return text_of(request)

    def batch(self, inputs: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
        """Keep the list: the model pads it."""
        return inputs

    def predict(self, inputs: list[tuple[str, bool]]) -> list[tuple[Any, bool]]:
        """A vector for each text."""
        vectors = self.encoder.encode([text for text, _ in inputs])
        return [(vector, as_base64) for vector, (_, as_base64) in zip(vectors, inputs, strict=True)]

    def unbatch(self, output: list[tuple[Any, bool]]) -> list[tuple[Any, bool]]:
        """An output for each request."""
        return output

    def encode_response(self, output: tuple[Any, bool]) -> dict[str, Any]:
        """The answer to one request."""
        return answer(*output)


if __name__ == "__main__":
    api = Embed(max_batch_size=max_batch(), batch_timeout=wait_s(), api_path="/v1/embeddings")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue="fast" in sys.argv)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
