# Relais: every command of a clone. State is in .relais and .venv; nothing is written to the home directory.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help up down demo bench-release bench-localcloud test soak check lock clean

PYTHON ?= python3
SETUP := $(PYTHON) -m setup
WITHIN := $(SETUP) run --
# Tests to run: make test T=tests/setup
T ?= tests

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@echo "  ports: make up PREFECT_PORT=4200 CLOUD_PORT=8800 CLOUD_ADMIN_PORT=8900 REGISTRY_PORT=5000 IMAGES_PORT=5500 (else free ones, chosen once)"

up: ## set-up, then registry, local cloud, Prefect server, worker and deployments
	@$(SETUP) up

down: ## end what this clone started; the Docker Engine stays
	@$(SETUP) down

demo: up ## up, then a release to 100 %, and a broken one that is caught and undone
	@$(WITHIN) .venv/bin/python examples/demo.py

bench-release: up ## up, then one release, timed: seconds of each stage, and how much of it is ours
	@$(WITHIN) .venv/bin/python -m benchmarks.release

bench-localcloud: ## the local cloud, timed against the bare container and against its targets
	@$(SETUP) tools
	@$(WITHIN) .venv/bin/python -m benchmarks.localcloud

test: ## set-up, then pytest, three files at a time; the tests start servers of their own
	@$(SETUP) tools
	@$(WITHIN) .venv/bin/python -m pytest -n 3 --dist loadfile $(T)

soak: ## the load, kill and fault tests of the local cloud, whole (make test runs a sample)
	@$(SETUP) tools
	@$(WITHIN) .venv/bin/python -m pytest -s --soak tests/soak

check: ## ruff, mypy --strict, import floors
	@$(SETUP) venv
	@failed=0; \
	.venv/bin/ruff check . || failed=1; \
	.venv/bin/mypy -p flows -p tasks -p relais -p localcloud -p setup || failed=1; \
	.venv/bin/python -m pytest -q -p no:cacheprovider tests/test_floors.py || failed=1; \
	exit $$failed

lock: ## pin what pyproject.toml asks for in requirements.lock (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv (outside .venv)"; exit 1; }
	@uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --no-header -q -o requirements.lock

clean: ## down, then remove .venv, .relais, node_modules and this clone's images
	@$(SETUP) clean
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
