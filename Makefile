# Set-up and daily verbs. `make help` lists them.
SHELL := /bin/bash
PY := .venv/bin/python
# uv does not read pip's configuration: hand its indexes on where there are any
export UV_INDEX ?= $(shell python3 -m pip config get global.extra-index-url 2>/dev/null)
export UV_INDEX_STRATEGY ?= unsafe-best-match

.PHONY: help install lock lint types contracts unit test

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -ts $$'\t'

.venv/installed: requirements.lock pyproject.toml
	python3 -m venv .venv
	.venv/bin/pip install -q --disable-pip-version-check uv
	.venv/bin/uv pip install -q -r requirements.lock
	.venv/bin/uv pip install -q --no-deps -e .
	touch $@

install: .venv/installed ## Create .venv from requirements.lock

lock: .venv/installed ## Resolve pyproject.toml anew into requirements.lock
	.venv/bin/uv pip compile pyproject.toml --group dev --universal -q --no-annotate --no-emit-index-url -o requirements.lock

lint: install
	.venv/bin/ruff check .

types: install
	.venv/bin/basedpyright

contracts: install
	.venv/bin/lint-imports --no-cache

unit: install
	$(PY) -m pytest

test: lint types contracts unit ## Lint, types, import contracts, tests: all that CI runs
