# UniSpector needs Python 3.11, 3.12 or 3.13, git and make; everything else is installed into .venv on first use.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup repro reports-real operate serve-flows test test-all test-systems check format docs notebooks page page-pictures lock clean

UV_VERSION := 0.13.9
VENV := .venv
INSTALLED := $(VENV)/.installed
UV = $$(command -v uv || echo $(VENV)/bin/uv)

# Without bytecode every process compiles its imports anew, and Ray and Prefect start dozens.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1

help: ## Show what there is to do.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Install the locked environment into .venv (the other targets do so by themselves).

repro: $(INSTALLED) ## Run the pipeline: data, training, evaluation, report; only what is out of date.
	@echo "$$(dvc stage list --name-only | wc -l) stages: data, checks, training of each seed, evaluation, sweeps, rivals, report;"
	@echo "about 21 minutes on 2 free cores the first time. Ctrl+C stops it, make repro goes on from there."
	dvc repro
	unispector report --show

reports-real: $(INSTALLED) ## Measure the package's models on real sets, for hours: make reports-real DATA=FOLDER.
	@test -n "$(DATA)" || { echo "error: give the folder of magnetic_tile/ and neu_det/: make reports-real DATA=FOLDER" >&2; exit 2; }
	unispector report --real "$(DATA)"

operate: $(INSTALLED) ## Start MLflow, Prefect, its worker and the service here, and keep them alive.
	unispector operate

serve-flows: $(INSTALLED) ## Start the schedule alone: a local Prefect server and its worker.
	unispector operate prefect worker

test: $(INSTALLED) ## Run the tests, without the slow ones, in two processes.
	pytest -m "not slow" -n 2 --dist loadfile

test-all: $(INSTALLED) ## Run all tests.
	pytest

test-systems: $(INSTALLED) ## Run the tests of all rivals; installs anomalib and ultralytics (AGPL-3.0) first.
	$(UV) pip install --quiet -c requirements.lock -e '.[ultralytics,anomaly]'
	pytest -n 2 --dist loadfile tests/systems

check: $(INSTALLED) ## Check format, lint, types and the direction of imports.
	ruff format --check .
	ruff check .
	mypy
	lint-imports

format: $(INSTALLED) ## Format the code and mend what the linter can.
	ruff format .
	ruff check --fix .

docs: $(INSTALLED) ## Build the documentation as a site into artifacts/site; a broken link is an error.
	@# Not with --quiet, which hides warnings from --strict, too.
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --clean -f docs/site/mkdocs.yml
	@echo "artifacts/site/index.html"

notebooks: $(INSTALLED) ## Run the notebooks of docs/notebooks anew, for minutes; their outputs are in git.
	jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False docs/notebooks/*.ipynb

page: ## Build the page of `unispector ui` into unispector/page/dist, which is in git; needs Node.js 20 or newer.
	cd unispector/page && npm ci --silent && npm run --silent build

page-pictures: $(INSTALLED) ## Take the pictures of docs/page.md anew; needs Chromium.
	python benchmarks/page_pictures.py docs/images

lock: $(INSTALLED) ## Renew requirements.lock after a change of dependencies in pyproject.toml.
	$(UV) lock
	$(UV) export --quiet --no-header --no-annotate --no-emit-project --all-groups --extra pipeline --extra accurate --extra supervision --extra systems -o requirements.lock

clean: ## Remove the environment and caches; data, models and reports stay.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage

# The stamp makes this run once, and again when the lock or the project's metadata change.
$(INSTALLED): requirements.lock pyproject.toml
	@test -x $(VENV)/bin/python || { \
	  python=$${PYTHON:-$$(command -v python3.11 || command -v python3)}; \
	  echo "setup: creating $(VENV) with $$python"; \
	  "$$python" -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "error: Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + "; name another: make clean setup PYTHON=python3.13")'; \
	  "$$python" -m venv $(VENV); }
	@test -x "$(UV)" || $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo "setup: installing the locked packages (several GB the first time)"
	@$(UV) pip install --quiet --no-deps --require-hashes --compile-bytecode -r requirements.lock
	@$(UV) pip install --quiet --no-deps --editable .
	@touch $@
