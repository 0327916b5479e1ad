# Two commands: `make run` (from nothing to completions) and `make test` (everything CI checks).
# Both can be run again at any time and do only what is missing.

PYTHON ?= python3
VENV := .venv
# The tests start hundreds of Python processes. Where this is set, each compiles the product again: half of a start's time.
export PYTHONDONTWRITEBYTECODE :=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt
# The tests of one file share what they set up. They wait for processes that they start, so one more than cores is faster:
# 308 s instead of 351 s on two. In the order of the files: by their number of tests, the longest would come last.
PROCESSES := $(shell expr $$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1) + 1)
PARALLEL := --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
TWO_AT_A_TIME = $(MAKE) --no-print-directory --jobs 2 --output-sync=target
# Two of these parts run at a time: each has a daemon of its own, and a model computes in only half of it.
E2E_TORCH := tests/e2e/tuning tests/e2e/evaluation
E2E_VSCODE := tests/e2e/vscode
E2E_ENGINE := tests/e2e/adapters tests/e2e/completion tests/e2e/engines tests/e2e/models
E2E_PARTS := e2e-torch e2e-vscode e2e-engine e2e-others
e2e-torch: E2E_TESTS := $(E2E_TORCH)
e2e-vscode: E2E_TESTS := $(E2E_VSCODE)
e2e-engine: E2E_TESTS := $(E2E_ENGINE)
e2e-others: E2E_TESTS := tests/e2e $(addprefix --ignore=,$(E2E_TORCH) $(E2E_VSCODE) $(E2E_ENGINE))

VSCODE := vscode-client
VSCODE_INPUTS = $(shell find $(VSCODE) -type f -not -path '*/node_modules/*' -not -path '*/dist/*' -not -path '*/out/*') $(wildcard docs/media/*)

JUPYTER := jupyter-client
JUPYTER_INPUTS = $(shell find $(JUPYTER) -type f -not -path '*/node_modules/*' -not -path '*/dist/*' -not -path '*/out/*' -not -path '*/__pycache__/*')

# What the wheel is made of.
WHEEL_INPUTS = $(INPUTS) README.md LICENSE $(shell find core daemon tuning evaluation lsp cli -type f -not -path '*/__pycache__/*')

.PHONY: always lock locked audit release run test test-all fuzz $(E2E_PARTS) lint python-check llama-server unit format bench shape clean vsix vscode-check jupyterlab jupyter-check pictures

run: $(VENV)/base.stamp
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(VENV)/test.stamp $(VSCODE)/node_modules/npm.stamp $(JUPYTER)/node_modules/npm.stamp
	$(TWO_AT_A_TIME) python-check vscode-check jupyter-check llama-server
	$(BIN)/peft-daemon models pull qwen2.5-coder-0.5b-instruct
	$(BIN)/python -m pytest $(PARALLEL) --durations=25 --durations-min=2 tests/unit tests/integration tests/snapshots tests/fuzz
	$(TWO_AT_A_TIME) --keep-going $(E2E_PARTS)

$(E2E_PARTS): $(VENV)/test.stamp
	$(BIN)/python -m pytest --durations=20 --durations-min=2 $(E2E_TESTS)

# Also what takes long: llama.cpp compiled for this machine, all tuning methods on the real model, the whole typing
# benchmark, and a soak of half an hour on each engine (PEFT_DAEMON_SOAK_S).
test-all: test
	$(BIN)/python -m pytest -m long -s --durations=0 --durations-min=1 tests/unit tests/integration tests/e2e tests/fuzz tests/long
	$(MAKE) --no-print-directory fuzz

# A search for faults in the readers of files that is guided by coverage, so many seconds for each (docs/testing.md).
FUZZ_S ?= 60
fuzz: $(VENV)/fuzz.stamp
	PYTHONPATH=tests $(BIN)/python -m fuzz.guided --seconds $(FUZZ_S)

lint: python-check vscode-check jupyter-check

python-check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks/*.py
	$(BIN)/lint-imports --no-cache

# A llama-server for the tests that runs on this processor.
llama-server: $(VENV)/test.stamp
	PYTHONPATH=tests $(BIN)/python -m support.llama_server

# The extension for VS Code: vscode-client/dist/peft-daemon-VERSION.vsix. With REPOSITORY=https://… as the marketplaces want it, with
# PRERELEASE=1 for their pre-release channel (docs/releasing.md); the next one without is made anew.
vsix: $(VSCODE)/dist/vsix.stamp

vscode-check: $(VSCODE)/node_modules/npm.stamp
	cd $(VSCODE) && npm run --silent check

# The extension for JupyterLab: jupyter-client/dist/peft_daemon_jupyterlab-VERSION-py3-none-any.whl
jupyterlab: $(JUPYTER)/dist/wheel.stamp

jupyter-check: $(JUPYTER)/node_modules/npm.stamp
	cd $(JUPYTER) && npm run --silent check

# The README's pictures, from a real VS Code.
pictures: $(VENV)/test.stamp vsix
	$(BIN)/peft-daemon models pull qwen2.5-coder-0.5b-instruct
	$(BIN)/python tests/e2e/vscode/pictures.py docs/media

unit: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(PARALLEL) tests/unit

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/base.stamp
	$(BIN)/python benchmarks/lsp_startup.py
	$(BIN)/python benchmarks/daemon.py

# Sizes of the product's files, names that mean two things, and what a completion passes through.
shape: $(VENV)/test.stamp
	@PYTHONPATH=tests $(BIN)/python -m shape

clean:
	rm -rf $(VENV) $(foreach each,$(VSCODE) $(JUPYTER),$(each)/node_modules $(each)/dist $(each)/out)

# The hashes of all packages, for this platform: after a change of constraints.txt or pyproject.toml.
lock: $(VENV)/python.stamp
	$(BIN)/python tools/lock.py

# An installation in which every file is the one whose hash was written down.
locked: $(VENV)/python.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(VENV)/base.stamp $(VENV)/test.stamp

# Known vulnerabilities of what is pinned. Asks PyPI's and npm's databases; a package that those do not know is an error.
audit: $(VENV)/python.stamp
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock
	cd $(VSCODE) && npm audit

# dist/: wheel, sources, the extension, SBOMs, SHA256SUMS. The same commit gives the same bytes.
release: $(VENV)/test.stamp $(VSCODE)/node_modules/npm.stamp
	$(BIN)/python tools/release.py dist

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

$(VENV)/fuzz.stamp: $(VENV)/test.stamp
	$(PIP) --group fuzz
	touch $@

# No package needs its install script here, so none is run.
$(VSCODE)/node_modules/npm.stamp: $(VSCODE)/package.json $(VSCODE)/package-lock.json $(VSCODE)/.npmrc
	cd $(VSCODE) && npm ci --ignore-scripts --silent
	touch $@

$(JUPYTER)/node_modules/npm.stamp: $(JUPYTER)/package.json $(JUPYTER)/package-lock.json $(JUPYTER)/.npmrc
	cd $(JUPYTER) && npm ci --ignore-scripts --silent
	touch $@

$(JUPYTER)/dist/wheel.stamp: $(VENV)/python.stamp $(JUPYTER)/node_modules/npm.stamp $(JUPYTER_INPUTS)
	rm -rf $(JUPYTER)/dist $(JUPYTER)/out
	cd $(JUPYTER) && npm run --silent build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(JUPYTER)/dist ./$(JUPYTER)
	touch $@

# The extension carries the package, built from this very checkout: Set Up needs only its dependencies from an index.
$(VSCODE)/dist/vsix.stamp: $(VENV)/python.stamp $(VSCODE)/node_modules/npm.stamp $(VSCODE_INPUTS) $(WHEEL_INPUTS) $(if $(REPOSITORY)$(PRERELEASE),always)
	rm -rf $(VSCODE)/dist $(VSCODE)/out/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(VSCODE)/out/wheel .
	cp constraints.txt $(VSCODE)/out/wheel
	cd $(VSCODE) && npm run --silent package
	$(if $(REPOSITORY)$(PRERELEASE),rm -f,touch) $@
