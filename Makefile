# Set-up and daily verbs. `make help` lists them.
SHELL := /bin/bash
PY := .venv/bin/python
LEPTON := PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/lepton
# uv does not read pip's configuration: hand its indexes and constraints on where there are any
export UV_CONSTRAINT ?= $(shell python3 -m pip config list 2>/dev/null | sed -n "s/^global.constraint='\(.*\)'$$/\1/p")
export UV_INDEX ?= $(shell python3 -m pip config get global.extra-index-url 2>/dev/null)
export UV_INDEX_STRATEGY ?= unsafe-best-match

.PHONY: help demo install lock up down bench lint types contracts unit test loops

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -ts $$'\t'

demo: install ## Install, run the graph for every task on real data, print what was built and how good it is
	@$(LEPTON) run
	@echo
	@echo "Next:  source .venv/bin/activate   (reads .env too: dg, dvc, feast and bentoml find this workspace)"
	@echo "       make up                     Dagster's UI, the services, the monitoring"
	@echo "       lepton predict sentiment \"A charming, clever film.\""
	@echo "       lepton status | dvc status | dg list defs | bentoml list"

.venv/installed: requirements.lock pyproject.toml
	python3 -m venv .venv
	.venv/bin/pip install -q --disable-pip-version-check uv
	.venv/bin/uv pip install -q -r requirements.lock
	.venv/bin/uv pip install -q --no-deps -e .
	@# whoever activates the environment gets the workspace's stores with it
	@grep -q 'lepton workspace' .venv/bin/activate || printf '\n# lepton workspace\ncd "%s" && set -a && . ./.env && set +a && cd "$$OLDPWD"\n' "$(CURDIR)" >> .venv/bin/activate
	touch $@

install: .venv/installed ## Create .venv from requirements.lock

lock: .venv/installed ## Resolve pyproject.toml anew into requirements.lock
	.venv/bin/uv pip compile pyproject.toml --group dev --universal -q --no-annotate --no-header --no-emit-index-url -o requirements.lock

up: install ## Start the UI, the services and the monitoring, on loopback
	@$(LEPTON) up

down: install ## Stop them
	@$(LEPTON) down

bench: install ## Measure serving and orchestration beside their peers
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) -m benchmarks.serving
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) -m benchmarks.orchestration

lint: install
	.venv/bin/ruff check .

types: install
	.venv/bin/basedpyright

contracts: install
	.venv/bin/lint-imports --no-cache

PYTEST := $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25

unit: install
	$(PYTEST) -m "not slow"

test: lint types contracts unit ## Lint, types, import contracts, tests

loops: install ## Whole loops on the smoke profile: kills, both faces, rehearsals, the tutorial. CI runs them too
	$(PYTEST) -m slow
