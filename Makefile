# install  an environment in ./.venv with everything the project and its tests need
# demo     the whole job on the embedded data, for a Jetson; can be repeated
# test     the tests      lint  style and types      bench  the tables of benchmarks/

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := install
.PHONY: install demo test lint bench clean

install: $(STAMP)

# The stamp makes a second `make install` instant; a change of the requirements renews it.
$(STAMP): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/compress-export --board jetson.yaml --force

# One thread per worker: two workers with a thread pool each would fight over two cores. A file's
# tests stay together, since they share jobs that take long.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	if command -v actionlint >/dev/null; then actionlint; else echo "no actionlint here"; fi
	if test -x $(BIN)/hadolint; then $(BIN)/hadolint Dockerfile; else echo "no hadolint here"; fi

# Every benchmarks/bench_*.py makes one published table and runs without arguments.
bench: $(STAMP)
	set -e; for script in benchmarks/bench_*.py; do \
	    echo "== $$script"; $(BIN)/python "$$script"; done

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
