# make demo   a real model, exported, served, and asked over HTTP
# make test   the whole test suite
# make check  formatting, lint, types, tests: what a change must pass
# make help   this list and the rest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(shell find runner/native -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name CMakeLists.txt)
MODULES := find -L src -name '*.py' | sort

.DEFAULT_GOAL := help
.PHONY: FORCE help install demo test test-slow test-clients test-cluster check lint format operators plans docs bench bench-peers bench-quality bench-against sanitize wheel site clean

help:
	@grep -E '^# make' Makefile | cut -c3-
	@echo "make install     .venv with edge-llm and the export and dev extras"
	@echo "make test-slow   the tests behind the slow mark"
	@echo "make lint        formatting, lint and types alone"
	@echo "make format      rewrite the sources in the project's style"
	@echo "make operators   what follows from the table of operators (program/ops.py)"
	@echo "make plans       the plans that ship as data (configs/plans), from the PyTorch modules"
	@echo "make docs        docs/cli.md and the man page from --help, the table of docs/models.md"
	@echo "make bench       the judged shapes beside llama.cpp alone (docs/performance.md stays)"
	@echo "make bench-peers our programs beside every peer: installs, converts, measures, documents"
	@echo "make bench-quality how close programs stay to the float model, beside llama.cpp's: compiles, quantizes, scores, times, documents"
	@echo "make bench-against COMMIT=REV  this tree beside an older commit (ARGS=--quick: minutes)"
	@echo "make test-clients  real clients (openai, langchain, a browser, ...) against our server: pinned, in environments of their own"
	@echo "make test-cluster  two nodes behind Ray Serve, in an environment of its own"
	@echo "make sanitize    native and engine tests under AddressSanitizer, UBSan and ThreadSanitizer"
	@echo "make site        the documentation as a site, into build/site/html"
	@echo "make wheel       sdist and wheel for this machine, into dist/"

install: $(STAMP)

# Editable: Python changes act at once. A changed native source builds the library again, and a module
# that came, went or moved is told to the import hook of the editable install.
$(STAMP): pyproject.toml $(NATIVE) $(VENV)/.modules
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing edge-llm, PyTorch and the tools into $(VENV): 1.6 GB the first time, some minutes"
	$(BIN)/python -m pip install --quiet --editable '.[export,dev]'
	touch $@

$(VENV)/.modules: FORCE
	@mkdir -p $(VENV)
	@$(MODULES) | cmp -s - $@ || $(MODULES) > $@

demo: $(STAMP)
	$(BIN)/python examples/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -m 'not slow'

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

test-clients: $(STAMP)
	$(BIN)/python tools/clients.py $(CLIENTS)

test-cluster: $(STAMP)
	$(BIN)/python tools/cluster.py

check: lint
	$(BIN)/python -m pytest -m 'not slow'

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $(filter %.cpp %.h %.inl,$(NATIVE))
	$(BIN)/mypy
	$(BIN)/mypy $(wildcard examples/*.py)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(filter %.cpp %.h %.inl,$(NATIVE))

operators: $(STAMP)
	$(BIN)/python tools/operators.py

plans: $(STAMP)
	$(BIN)/python tools/plans.py

docs: $(STAMP)
	$(BIN)/python docs/make_cli.py > docs/cli.md
	$(BIN)/python docs/make_cli.py --man > docs/edge-llm.1
	$(BIN)/python docs/make_models.py > docs/models.md.new && mv docs/models.md.new docs/models.md

bench: $(STAMP)
	$(BIN)/python benchmarks/peers.py all --quick

bench-peers: $(STAMP)
	$(BIN)/python benchmarks/peers.py all

bench-quality: $(STAMP)
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/quality.py --grids

bench-against: $(STAMP)
	$(BIN)/python benchmarks/against.py $(COMMIT) $(ARGS)

sanitize: $(STAMP)
	$(BIN)/python tools/sanitize.py

wheel:
	$(PYTHON) tools/wheel.py

SITE := build/site/env
site: $(SITE)/.installed
	$(SITE)/bin/python tools/site.py

# An environment of its own: the site needs nothing of ours.
$(SITE)/.installed: pyproject.toml
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet 'mkdocs-material>=9.5'
	touch $@

clean:
	rm -rf build dist $(VENV)
