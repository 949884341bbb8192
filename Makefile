# Two commands: `make demo` trains the demo, `make test` runs every check. Both install what they need into .venv, once.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-slow lint site clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Any Python 3.11 on the PATH makes the environment; `make PYTHON=/path/to/python3.11 demo` names one.
PYTHON ?= $(shell for name in python3.11 python3 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$name && break; done)

# A stamp's name holds the checksum of what was installed: another lock is another stamp, the same one is up to date.
checksum = $(shell cat $(1) | cksum | tr ' ' '-')
BUILD := setup.cfg setup.py pyproject.toml $(wildcard learner/maths/kernels/*.[ch])
INSTALLED := $(VENV)/installed-$(call checksum,requirements/cpu.lock $(BUILD))
INSTALLED_DEV := $(VENV)/installed-dev-$(call checksum,requirements/cpu.lock requirements/dev.lock $(BUILD))
SETUPTOOLS := $(shell grep '^setuptools==' requirements/cpu.lock)
MODEL := models/demo
# Tests of whole runs mostly wait for one process to start; two at a time use both cores. A file stays in one process.
PYTEST := $(BIN)/python -m pytest --no-loadscope-reorder
FAST := -n 2 -m "not slow"
# setup.cfg says what is measured and how much of it the fast tests must reach. It costs a quarter of their time.
COVERAGE := --cov --cov-report=
SLOW := -n 2 -m slow

help:
	@echo "make demo       install, make the demo model, train it under noisy rewards (about ten minutes the first time)"
	@echo "make test       install, then in stages: ruff and mypy, the fast tests with their coverage, the slow tests"
	@echo "make test-fast  ruff, mypy and the fast tests, without their coverage"
	@echo "make test-slow  the slow tests only"
	@echo "make lint       ruff and mypy only"
	@echo "make install    only make $(VENV)"
	@echo "make clean      delete caches; runs, models and $(VENV) stay"

install: $(INSTALLED)

demo: $(INSTALLED) $(MODEL)/tokenizer_config.json
	$(BIN)/dvpo train configs/demo.yaml --overwrite

# Compiled files are kept even where the environment says otherwise: without them every process of every test, hundreds
# in all, compiles this project anew.
test test-fast test-slow: export PYTHONDONTWRITEBYTECODE :=

# Stages in the order of what they cost, so that most mistakes are told within a minute; each test is in one of them.
test: lint
	$(PYTEST) $(FAST) $(COVERAGE)
	$(PYTEST) $(SLOW)

test-fast: lint
	$(PYTEST) $(FAST)

test-slow: $(INSTALLED_DEV)
	$(PYTEST) $(SLOW)

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

site: $(INSTALLED_DEV)
	$(PIP) install --no-deps -r requirements/docs.lock
	$(BIN)/python -m sphinx -n -W --keep-going -b html docs docs/_build

clean:
	rm -rf docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

# Every pin is exact and complete, hence --no-deps; the packages that are built from source use the pinned setuptools.
$(INSTALLED):
	@test -n "$(PYTHON)" || { echo "no Python 3.11 on the PATH; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "installing into $(VENV): once, about two minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --no-deps '$(SETUPTOOLS)'
	$(PIP) install --no-deps --no-build-isolation -r requirements/cpu.lock || \
		{ echo "see requirements/README.md if a package was not found" >&2; exit 1; }
	$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/installed-[0-9]*
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) install --no-deps -r requirements/dev.lock
	@rm -f $(VENV)/installed-dev-*
	@touch $@

$(MODEL)/tokenizer_config.json: | $(INSTALLED)
	$(BIN)/dvpo warmstart --output $(MODEL)
