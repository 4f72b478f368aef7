# make demo | test | browser | check | bench | clean. Each sets up .venv by itself; only that needs the network.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed-for-lungfish
# Narrow a run: make test ARGS="tests/unit -x"; that is one process, and without ARGS it is two (docs/adr/0051).
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test browser check bench clean

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## demo     a tour on this machine: embedded store, a small Ray cluster, a crash
demo: $(STAMP)
	$(VENV)/bin/lungfish demo $(ARGS)

## test     all tests
test: $(STAMP)
	$(PY) -m $(if $(strip $(ARGS)),pytest $(ARGS),tests.lanes)

## browser  tests of the dashboard in a Chromium of this machine (docs/adr/0040)
browser: $(STAMP)
	$(PY) -c 'import playwright' 2>/dev/null || $(PY) -m pip install --quiet --disable-pip-version-check '.[browser]'
	$(PY) -m pytest tests/browser $(ARGS)

## check    format, lint, types
check: $(STAMP)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/basedpyright

## bench    all benchmarks
bench: $(STAMP)
	$(PY) -m benchmarks $(ARGS)

## clean    remove what builds, tests and checkers leave behind (not .venv, not your .lungfish)
clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Depends on pyproject.toml: a changed dependency is installed by the next make.
$(STAMP): pyproject.toml
	@test -x $(PY) || { \
	    for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	        if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then \
	            echo "$$python -m venv $(VENV)"; $$python -m venv $(VENV) && exit 0; exit 1; \
	        fi; \
	    done; \
	    echo "error: Lungfish needs Python 3.11 to 3.14 (Ray has wheels for those); none was found on PATH." >&2; \
	    echo "       Name one: make test PYTHON=/path/to/python3" >&2; \
	    exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev,demo]'
	@touch $@
