# Two commands do all the set-up on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.complete
DEV    := $(VENV)/.complete-dev
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: run setup check test gpu-test clean

run: $(STAMP)
	$(BIN)/feldspar run recipes/quickstart.toml

setup: $(STAMP)

# The stamp is written last: an install that was killed has none, and is done again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "feldspar needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -e $(STAMP) || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV) (torch is the largest part)"
	@$(PIP) -e .
	@touch $(STAMP)

$(DEV): $(STAMP)
	@echo "installing the development tools and the extras that the tests use"
	@$(PIP) -e '.[dev,eval,gguf,lora,parquet,tracking]'
	@touch $(DEV)

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m 'not slow and not gpu'

test: check
	$(BIN)/pytest -m 'slow and not gpu'

gpu-test: $(DEV)
	$(BIN)/pytest -m gpu

clean:
	rm -rf $(VENV) runs recipes/.feldspar recipes/*/.feldspar
