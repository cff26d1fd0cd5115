# Everything here sets itself up: `make demo` and `make test` need Python 3.10, 3.11 or 3.12 with venv, and make.
# PYTHON=... chooses the interpreter, NOMX_PYTHON=... that of the environment without MXNet.

SHELL := /bin/sh
PYTHON ?= $(shell scripts/find-python 3.12 3.11 3.10)
NOMX_PYTHON ?= $(shell scripts/find-python 3.13 3.12 3.11 3.10)
WORKERS ?= 2

VENV := .venv
NOMX := .venv-nomx
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPATH :=

# A stamp names what is installed, so that nothing is done twice and nothing stale is used.
key = $(shell cat requirements/$(1).txt pyproject.toml | cksum | tr -d ' ')
STAMP := $(VENV)/installed-$(call key,dev)
NOMX_STAMP := $(NOMX)/installed-$(call key,nomx)

.PHONY: help setup demo test test-mxnet test-nomx lint format lock wheel readme results clean

help:
	@sed -n 's/^## //p' Makefile

## make demo    the main job on real photographs; writes reports/demo/index.html
demo: $(STAMP)
	$(VENV)/bin/python -m harness.demo

## make test    lint, the suites, and the suites again without MXNet on NumPy 2
test: lint test-mxnet test-nomx

test-mxnet: $(STAMP)
	$(VENV)/bin/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

test-nomx: $(NOMX_STAMP)
	$(NOMX)/bin/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

## make lint    ruff and mypy --strict
lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

## make format  what ruff can put right by itself
format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

## make results  run the demo, store what it found in reports/ and fill the README
results: demo
	cp reports/demo/demo.json reports/demo.json
	$(VENV)/bin/python scripts/fill_readme.py

## make readme  fill README and docs/results.md from the stored results
readme: $(STAMP)
	$(VENV)/bin/python scripts/fill_readme.py

## make lock    remake requirements/*.txt (needs uv)
lock:
	scripts/lock

## make wheel   dist/mxtrt-*.whl
wheel: $(STAMP)
	$(VENV)/bin/python -m hatchling build -t wheel

## make setup   only install
setup: $(STAMP) $(NOMX_STAMP)

clean:
	rm -rf $(VENV) $(NOMX) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP):
	scripts/install "$(PYTHON)" $(VENV) dev $@

$(NOMX_STAMP):
	scripts/install "$(NOMX_PYTHON)" $(NOMX) nomx $@
