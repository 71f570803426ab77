# These commands do all the set-up on a fresh machine: `make run`, `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.complete
DOCS   := $(VENV)-docs
DEV    := $(VENV)/.complete-dev
GGUF   := $(VENV)/.complete-gguf
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

# Tests of one file share a worker, and what their fixtures make. WORKERS=0: all in one process.
WORKERS ?= auto
PYTEST  := $(BIN)/pytest --maxprocesses 8 --dist loadfile
# Slow tests wait for servers and for processes that end, so one more than there are cores works.
SLOW_WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

# Compiled files are kept: each worker would compile every test again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run demo setup check style types fast-tests test gpu-test docs clean

run: $(STAMP)
	$(BIN)/feldspar run recipes/quickstart.toml

# A real chat model learns an invented island; then its answers and its base's, side by side.
demo: $(GGUF)
	$(BIN)/feldspar run recipes/demo.toml
	$(BIN)/feldspar chat demo --beside-base --try 6

setup: $(STAMP)

# The stamp is written last: an install that was killed has none, and is done again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "feldspar needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -e $(STAMP) || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV) (torch is the largest part)"
	@$(PIP) -e .
	@touch $(STAMP)

$(GGUF): $(STAMP)
	@$(PIP) -e '.[gguf,lora]'
	@touch $(GGUF)

$(DEV): $(STAMP)
	@echo "installing the development tools and the extras that the tests use"
	@$(PIP) -e '.[dev,eval,gguf,lora,parquet,retrieval,tracking]'
	@touch $(DEV) $(GGUF)

# mypy runs next to the tests; if one part fails, the others still finish.
check: $(DEV)
	@$(MAKE) --no-print-directory --keep-going -j2 style types fast-tests

style:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types:
	$(BIN)/mypy

fast-tests:
	$(PYTEST) --numprocesses $(WORKERS) -m 'not slow and not gpu'

test: check
	$(PYTEST) --timeout 900 --numprocesses $(SLOW_WORKERS) -m 'slow and not gpu'

gpu-test: $(DEV)
	$(BIN)/pytest -m gpu

# The site in build/site; a link that leads nowhere is an error. In an environment of its own.
docs: $(DOCS)/.complete
	@$(DOCS)/bin/python docs/build_site.py

$(DOCS)/.complete: pyproject.toml
	@$(PYTHON) -m venv --clear $(DOCS)
	@$(DOCS)/bin/python -m pip install --disable-pip-version-check --quiet 'mkdocs-material>=9.6,<10'
	@touch $@

clean:
	rm -rf $(VENV) $(DOCS) build runs recipes/.feldspar recipes/*/.feldspar
