# syntax=docker/dockerfile:1
# One image for every process of Daybreak (gateway, operator, Ray head, groups), except workers: they run in the image
# of their engine.
#
#   docker build -t daybreak:dev .                             the default build
#   docker build --build-arg BASE=my-cuda-and-python …         another base image: Debian or Ubuntu with Python ≥ 3.11
#   docker build --build-arg WHEELS=/src/wheels …              also installs wheels from the folder wheels/, such as torch
#
# docker, podman and buildah accept these options. Only buildah is tested.
#
# The first stage resolves and installs the packages. The second stage contains only what runs. The source is the last layer
# of files, so after an edit of the source the build takes seconds.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS install
ARG WHEELS=
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never PIP_DISABLE_PIP_VERSION_CHECK=1
# The build tools have their own environment, which is not copied into the final image.
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --quiet "uv>=0.9" "hatchling>=1.27" \
 && python3 -m venv --without-pip /opt/daybreak \
 && echo /opt/app > "$(/opt/daybreak/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/daybreak.pth"
WORKDIR /src
# The pattern wheel[s] copies the folder only if it exists.
COPY requirements.lock wheel[s] wheels/
COPY services/python/pyproject.toml services/python/
COPY controlplane-sdk/pyproject.toml controlplane-sdk/
# The lock file sets the version of each package. Packages that only tests need are not installed. torch from PyPI also
# installs its CUDA packages.
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
# The dependencies come before Daybreak's two packages, so that an edit of the source changes only the last of these layers.
COPY --from=install /opt/daybreak /opt/daybreak
# This wrapper comes before Ray's own command on PATH, because the wrapper answers KubeRay's calls faster.
COPY deploy/image/ray-wrapper /opt/shims/ray
COPY --from=install /opt/app /opt/app
ENV PATH=/opt/shims:/opt/daybreak/bin:/opt/app/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/home/daybreak DAYBREAK_DATA_DIR=/tmp/daybreak
USER 1000:1000
WORKDIR /home/daybreak
# Daybreak writes only to /tmp and its home folder, which are emptyDirs in the chart. So the root file system may be
# read-only.
ENTRYPOINT ["daybreakd"]
CMD ["--help"]
# Labels come last, because they change with every commit. If you publish the image, add the labels source, url and
# documentation with `--label`.
ARG BASE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Daybreak" \
      org.opencontainers.image.description="Long GPU jobs as a service: gateway, operator, Ray head and groups" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
