# syntax=docker/dockerfile:1
# One image for every process of Daybreak: gateway, operator, Ray head and workers.
#
#   docker build -t daybreak:dev .                             (podman and buildah work too; only buildah is tested)
#   docker build --build-arg BASE=nvidia/cuda:… …              your own base: Debian or Ubuntu with Python ≥ 3.11
#   docker build --build-arg WHEELS=/src/wheels …              wheels from the folder wheels/ of the context, torch for example
#
# The first stage resolves and installs; the second contains only what runs. What changes often comes last, so an edit of
# the source rebuilds one layer in seconds.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS install
ARG WHEELS=
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never PIP_DISABLE_PIP_VERSION_CHECK=1
# The build tools have a separate environment, which stays in this stage.
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --quiet "uv>=0.9" "hatchling>=1.27" \
 && python3 -m venv --without-pip /opt/daybreak \
 && echo /opt/app > "$(/opt/daybreak/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/daybreak.pth"
WORKDIR /src
# The pattern wheel[s] copies the folder only if it exists.
COPY requirements.lock wheel[s] wheels/
COPY services/python/pyproject.toml services/python/
COPY controlplane-sdk/pyproject.toml controlplane-sdk/
# The lock file constrains every version; packages that only tests need are left out. torch installs its CUDA packages.
RUN export UV_FIND_LINKS="${WHEELS:-${UV_FIND_LINKS:-}}" \
 && /opt/build/bin/uv pip compile --quiet --no-annotate --no-header --python /opt/daybreak/bin/python \
      --constraint wheels/requirements.lock --extra all --extra cli --extra relay \
      --no-emit-package daybreak-sdk --no-emit-package daybreak-server \
      services/python/pyproject.toml controlplane-sdk/pyproject.toml --output-file runtime.txt \
 && /opt/build/bin/uv pip install --quiet --python /opt/daybreak/bin/python --compile-bytecode --no-cache \
      --requirement runtime.txt
COPY controlplane-sdk controlplane-sdk
COPY services/python services/python
RUN for project in controlplane-sdk services/python; do \
      (cd "$project" && /opt/build/bin/python -m hatchling build --target wheel --directory /src/dist) || exit 1; done \
 && /opt/build/bin/uv pip install --quiet --python /opt/daybreak/bin/python --no-deps --compile-bytecode --no-cache \
      --target /opt/app dist/*.whl

FROM ${BASE}
RUN useradd --uid 1000 --create-home --shell /bin/bash daybreak
# First the dependencies, then the two distributions, so that an edit changes only the last layer.
COPY --from=install /opt/daybreak /opt/daybreak
# First on PATH, before Ray's own command: it answers KubeRay's calls faster.
COPY deploy/image/ray /opt/shims/ray
COPY --from=install /opt/app /opt/app
ENV PATH=/opt/shims:/opt/daybreak/bin:/opt/app/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/home/daybreak DAYBREAK_DATA_DIR=/tmp/daybreak
USER 1000:1000
WORKDIR /home/daybreak
# The root file system may be read-only: only /tmp is written (an emptyDir in the chart).
ENTRYPOINT ["daybreakd"]
CMD ["--help"]
# Labels come last, because they change with every commit. The publisher adds source, url and documentation (`--label`).
ARG BASE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Daybreak" \
      org.opencontainers.image.description="Long GPU jobs as a service: gateway, operator, Ray head and workers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
