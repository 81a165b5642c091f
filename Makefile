# Two commands: `make compare` trains and compares three heads, `make test` runs all tests.
# Both make a virtual environment first and install exact versions into it.
#   make compare ARGS="--data texts/ --head.width 256"

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
PICTURES ?= docs/examples
WORKERS ?= 2

.PHONY: compare test lint format docs examples clean

compare: .venv/cli
	$(BIN)/calmkit compare $(ARGS)

# Two processes with one thread each: a second thread would cost more than it brings. The order of
# files is that of tests/conftest.py, the slow ones first. Bytecode is written, whatever the
# environment says: each of the many processes would compile all modules again.
test: .venv/dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
	  --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Without the cache, which knows of changed pages and not of changed docstrings.
docs: .venv/docs
	$(BIN)/zensical build --clean --strict
	$(BIN)/python .ci/check_site.py site

# Runs the scripts of examples/, which draw the pictures of their page, and the notebook.
examples: .venv/dev
	for script in $(CURDIR)/examples/*.py; do \
	  (cd $(PICTURES) && MPLBACKEND=agg $(CURDIR)/$(BIN)/python $$script) || exit 1; done
	$(BIN)/python .ci/notebook.py --run

clean:
	rm -rf .venv

# A stamp for each set of extras that is installed.
.venv/%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "calmkit needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	@touch $@
