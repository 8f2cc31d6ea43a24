# Daybreak: one door. `make help` lists what there is.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PY ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8000
# uv does not read pip's settings: hand it the folder of wheels that pip was told of (a CPU build of torch, say).
UV_FIND_LINKS ?= $(shell for k in :env:.find-links global.find-links user.find-links; do \
	$(PY) -m pip config get $$k 2>/dev/null && break; done)
export UV_FIND_LINKS
# Compiled modules are kept: without them each of the many processes of a test run compiles torch and Ray for itself.
unexport PYTHONDONTWRITEBYTECODE
# The lab and the benchmarks are programs beside the package, not in it.
LAB = cd services/python && $(CURDIR)/$(BIN)/python
# Most tests wait for processes, so more of them than cores run at once; those of a file run in order on one worker.
WORKERS ?= 4
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
UV_INSTALL = $(BIN)/uv pip install -q -p $(BIN)/python

.PHONY: help setup demo up test test-quick check format faults faults-long mutants bench figures gpu image chart e2e e2e-full previous bench-k8s ray-lowest ray-next train-tiny wheels demo-from-wheels lock clean

help:  ## List the targets
	@echo "Daybreak. Two to begin with: make demo, make test."
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

$(BIN)/uv:
	@echo "Making $(VENV) …"
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Daybreak needs Python 3.11 or newer: make PY=python3.11 …")'
	@$(PY) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check "uv>=0.9"

$(VENV)/.installed: requirements.lock services/python/pyproject.toml controlplane-sdk/pyproject.toml | $(BIN)/uv
	@echo "Installing from requirements.lock (the first time this downloads; 1.7 GB on disk with a CPU build of torch) …"
	@$(UV_INSTALL) -r requirements.lock
	@$(UV_INSTALL) --no-deps -e controlplane-sdk -e services/python
	@touch $@

setup: $(VENV)/.installed  ## Make .venv from the lock file

demo: setup  ## A prompt to an MP4 through every part, then stop
	@$(BIN)/daybreakd demo

up: setup  ## Run Daybreak on 127.0.0.1:8000 until Ctrl-C (PORT= changes it)
	@DAYBREAK_HTTP__PORT=$(PORT) $(BIN)/daybreakd up

test: setup  ## All tests that need no GPU
	@$(BIN)/python -m pytest -m "not gpu" $(PARALLEL) $(PYTEST)

test-quick: setup  ## The tests without those that start whole systems
	@$(BIN)/python -m pytest -m "not gpu and not slow and not tiny" $(PARALLEL) $(PYTEST)

check: setup  ## Format, lint, types, import contracts, sizes, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy services/python/src/daybreak_server controlplane-sdk/src/daybreak
	$(BIN)/lint-imports
	$(BIN)/python tools/sizes.py
	$(BIN)/python tools/lock.py --check requirements.lock
	$(BIN)/python tools/openapi.py --check
	$(BIN)/python tools/reference.py --check
	$(BIN)/python tools/crd.py --check
	$(BIN)/python tools/chart.py --check
	$(BIN)/python tools/manifests.py --check
	$(BIN)/python tools/figures.py --check

format: setup  ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

faults: setup  ## Kill, pause, cut and fill what can be, and check that nothing was lost (minutes)
	@$(LAB) -m verification.faults all
	@$(LAB) -m verification.faults.environment
	@$(LAB) -m verification.faults.system

faults-long: setup  ## The same with the counts that docs/reliability.md promises (hours)
	@$(LAB) -m verification.faults long
	@$(LAB) -m verification.faults.environment --long
	@$(LAB) -m verification.faults.system --long

mutants: setup  ## Plant all bugs in a copy of the source: each must be caught by a test (MUTANTS="--share 1/3": a third)
	@$(LAB) -m verification.mutants $(MUTANTS)

bench: setup  ## Measure against floors and rivals; tables and JSON into docs (QUICK=--quick: a minute each)
	@for one in queue http streams competitors video simulate; do ($(LAB) -m verification.benchmarks.$$one $(QUICK)); done
	@$(BIN)/python tools/figures.py

figures: setup  ## Put saved figures into the pages of docs
	@$(BIN)/python tools/figures.py

IMAGE ?= daybreak:dev
image:  ## Build the image with docker, podman or buildah (IMAGE=daybreak:dev)
	@for tool in docker podman buildah; do \
		if command -v $$tool >/dev/null; then \
			exec $$tool build -t $(IMAGE) \
				--build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' services/python/pyproject.toml)" \
				--build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" .; fi; done; \
	echo "none of docker, podman and buildah is on PATH" >&2; exit 1

chart: setup  ## Make what follows from the Helm chart, then lint and test it (helm, helm-unittest, kube-score; KUBECONFIG for dry runs)
	@$(BIN)/python tools/crd.py && $(BIN)/python tools/chart.py && $(BIN)/python tools/manifests.py
	@$(BIN)/python -m pytest services/python/tests/deploy $(PYTEST)

e2e: setup  ## On the cluster that KUBECONFIG names: from nothing to a video and back (at most 12 minutes)
	@$(BIN)/python -m e2e --core --image $(IMAGE) $(PYTEST)

# To upgrade to: another build, or the same under another name (`make image IMAGE=daybreak:next`).
NEXT_IMAGE ?= daybreak:next
e2e-full: setup  ## The same, and kills, wrong settings, backups, an upgrade to NEXT_IMAGE (daybreak:next: make image IMAGE=daybreak:next)
	@$(BIN)/python -m e2e --full --image $(IMAGE) --next-image $(NEXT_IMAGE) \
		$(if $(wildcard build/previous),--previous-image daybreak:previous --previous-chart build/previous/deploy/helm/daybreak) $(PYTEST)

PREVIOUS ?= HEAD~1
previous:  ## Lay out an older commit, from which e2e-full then upgrades (PREVIOUS=HEAD~1); its image is yours to build
	@rm -rf build/previous && mkdir -p build/previous && git archive $(PREVIOUS) | tar -x -C build/previous
	@echo "build/previous is $$(git rev-parse --short $(PREVIOUS)). Next: make -C build/previous image IMAGE=daybreak:previous"

bench-k8s: setup  ## Measure on the cluster that KUBECONFIG names: wakes, a burst, 200 pools (kwok) (QUICK=--quick)
	@cd services/python && ../../$(BIN)/python -m verification.benchmarks.k8s --image $(IMAGE) $(QUICK)
	@cd services/python && ../../$(BIN)/python -m verification.benchmarks.scale $(QUICK)
	@$(BIN)/python tools/figures.py

# Where a GPU is there is often no package registry. So this needs no .venv: it takes the first Python, of .venv's and PY,
# whose torch sees a GPU, and the source tree as it is. What PYTHONPATH holds already (wheels brought along) stays there.
gpu: export PYTHONPATH := $(CURDIR)/services/python:$(CURDIR)/services/python/src$(if $(PYTHONPATH),:$(PYTHONPATH))
gpu: export PYTEST_DISABLE_PLUGIN_AUTOLOAD := 1
gpu:  ## Tests and benchmark on a GPU (torch with CUDA, diffusers, transformers, pydantic, pytest; needs no setup; PY=)
	@chosen=; for python in $(wildcard $(CURDIR)/$(BIN)/python) $(PY); do \
		status=0; $$python -m verification.benchmarks.gpu.preflight || status=$$?; \
		if [ $$status = 0 ]; then chosen=$$python; break; fi; \
		if [ $$status = 3 ]; then chosen=$${chosen:-$$python}; fi; done; \
	if [ -z "$$chosen" ]; then echo "make gpu: no Python here can run it; name one with PY=, or run make setup" >&2; exit 1; fi; \
	$$chosen -m pytest -c services/python/tests/video/gpu.ini services/python/tests/video $(PYTEST); \
	$$chosen -m verification.benchmarks.gpu $(QUICK) $(if $(OUT),--out $(OUT))

ray-lowest: setup  ## The tests that start Ray, with the oldest Ray that pyproject allows
	@$(BIN)/python tools/other_ray.py lowest $(PYTEST)

ray-next: setup  ## The same with the newest release of Ray, or RAY=2.61.0
	@$(BIN)/python tools/other_ray.py $(or $(RAY),next) $(PYTEST)

train-tiny: setup  ## Train the tiny Wan that ships in the package
	@$(LAB) -m verification.tiny_model.train

wheels: setup  ## Build both wheels into dist/
	@rm -rf dist
	@$(BIN)/python -m build -q --no-isolation --wheel -o dist controlplane-sdk
	@$(BIN)/python -m build -q --no-isolation --wheel -o dist services/python
	@ls -l dist

demo-from-wheels: wheels  ## The demo from the wheels in an empty environment, not from the source tree
	@rm -rf build/venv && $(PY) -m venv build/venv
	@$(BIN)/uv pip install -q -p build/venv/bin/python -r requirements.lock
	@$(BIN)/uv pip install -q -p build/venv/bin/python --no-deps dist/*.whl
	@cd build && venv/bin/daybreakd demo

lock: | $(BIN)/uv  ## Write requirements.lock from the pyproject files (UPGRADE=1: newest releases)
	$(BIN)/uv pip compile -q $(if $(UPGRADE),--upgrade) --universal --python-version 3.11 --no-annotate --no-header --no-emit-find-links \
		--no-emit-package daybreak-sdk --no-emit-package daybreak-server \
		services/python/pyproject.toml controlplane-sdk/pyproject.toml requirements-dev.in \
		--extra all --extra cli -o requirements.lock
	$(BIN)/python tools/lock.py requirements.lock

clean:  ## Remove what was made here (.venv, data, builds)
	rm -rf $(VENV) .daybreak out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
