"""LitServe: ``python -m …litserve_app PORT [fast]``. ``fast`` selects LitServe's fast queue.

``predict`` gets the inputs of a batch as a list, and returns a list with one output for each input.
"""

from __future__ import annotations

import sys
from typing import Any

import litserve as ls

from verification.benchmarks.embedding.apps.common import Encoder, answer, max_batch, text_of, wait_s


class Embed(ls.LitAPI):
    """The API of one model."""

    def setup(self, device: str) -> None:
        """Load the model. LitServe calls this in the worker process."""
        self.encoder = Encoder()

    def decode_request(self, request):  # an annotation would change how LitServe parses requests
        """The text of a request, and whether its answer must be in base64."""
        return text_of(request)

    def batch(self, inputs: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
        """Return the list as it is, because the model itself pads the texts to the same length."""
        return inputs

    def predict(self, inputs: list[tuple[str, bool]]) -> list[tuple[Any, bool]]:
        """Compute a vector for each text."""
        vectors = self.encoder.encode([text for text, _ in inputs])
        return [(vector, as_base64) for vector, (_, as_base64) in zip(vectors, inputs, strict=True)]

    def unbatch(self, output: list[tuple[Any, bool]]) -> list[tuple[Any, bool]]:
        """The outputs, one for each request."""
        return output

    def encode_response(self, output: tuple[Any, bool]) -> dict[str, Any]:
        """The answer to one request."""
        return answer(*output)


if __name__ == "__main__":
    api = Embed(max_batch_size=max_batch(), batch_timeout=wait_s(), api_path="/v1/embeddings")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue="fast" in sys.argv)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
