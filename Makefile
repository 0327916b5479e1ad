# Two commands: `make run` (from nothing to completions) and `make test` (everything CI checks).
# Both can be run again at any time and do only what is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt

.PHONY: run test lint unit format bench clean

run: $(VENV)/base.stamp
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: lint $(VENV)/test.stamp
	$(BIN)/peft-daemon models pull qwen2.5-coder-0.5b-instruct
	$(BIN)/python -m pytest --durations=15 tests/unit tests/integration tests/e2e

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/test.stamp
	$(BIN)/python -m pytest tests/unit

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/base.stamp
	$(BIN)/python benchmarks/lsp_startup.py
	$(BIN)/python benchmarks/daemon.py

clean:
	rm -rf $(VENV)

$(VENV)/python.stamp:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip==26.3
	touch $@

$(VENV)/base.stamp: $(VENV)/python.stamp $(INPUTS)
	$(PIP) --editable .
	touch $@

$(VENV)/test.stamp: $(VENV)/base.stamp $(INPUTS)
	$(PIP) --editable '.[all,ray]' --group test
	touch $@
