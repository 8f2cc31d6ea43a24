"""llama.cpp's own server, from the wheel ``xllamacpp``, with the options of ``llama-server`` that workers use.

This file runs in the Python environment that :mod:`~daybreak_server.local.llama_cpp.install` creates, so it imports
only the standard library and ``xllamacpp``. The model runs on one thread: more threads than
free cores make llama.cpp many times slower.
"""

from __future__ import annotations

import argparse
import sys
import time

import xllamacpp  # type: ignore[import-not-found]  # it is in another environment


def main() -> None:
    """Serve one model until a signal ends the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--ctx-size", type=int, default=512, help="maximum number of tokens of all parallel requests"
    )
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--embeddings", action="store_true", help="serve embeddings as well")
    options = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_ctx = options.ctx_size
    params.n_parallel = options.parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 4
    params.warmup = False
    if options.embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    sys.stdout.write(f"llama.cpp listens on {server.listening_address}\n")
    sys.stdout.flush()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
