# Daybreak: one door. `make help` lists what there is.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv does not read pip's settings: hand it the folder of wheels that pip was told of (a CPU build of torch, say).
UV_FIND_LINKS ?= $(shell $(PY) -m pip config get env.find-links 2>/dev/null || $(PY) -m pip config get global.find-links 2>/dev/null || $(PY) -m pip config get :env:.find-links 2>/dev/null)
export UV_FIND_LINKS
PORT ?= 8000

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/uv:
	$(PY) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check "uv>=0.9"

$(VENV)/.installed: requirements.lock services/python/pyproject.toml controlplane-sdk/pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install -q -p $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install -q -p $(BIN)/python --no-deps -e controlplane-sdk -e services/python
	touch $@

setup: $(VENV)/.installed  ## Make .venv from the lock file

lock: | $(BIN)/uv  ## Write requirements.lock anew from the pyproject files
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --no-annotate --no-header --no-emit-find-links --no-emit-package daybreak-sdk --no-emit-package daybreak-server \
		services/python/pyproject.toml controlplane-sdk/pyproject.toml requirements-dev.in --extra all --extra cli -o requirements.lock
	$(BIN)/python tools/lock.py requirements.lock
