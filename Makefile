# install  an environment in ./.venv with everything the project and its tests need
# demo     the whole job on the embedded data, for a Jetson; can be repeated
# test     the tests      lint  style and types      bench  the tables of benchmarks/
# lock     requirements/ anew: what CI and the image install; UPGRADE=1 takes newer releases
# audit    known vulnerabilities of the locked set     licences  docs/licences.md
# sbom     sbom.cdx.json: what the image is made of    coverage  the tests, and what they reach
#
# LOCKED=1 installs exactly requirements/ci.txt, by hashes, where setup.cfg names ranges.

PYTHON ?= python3
VENV ?= .venv
# make takes names apart at spaces: `clean` would remove other folders.
ifneq '$(VENV)' '$(firstword $(VENV) none)'
$(error VENV=$(VENV): must be one path without spaces)
endif
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed$(if $(LOCKED),-locked)
TOOLS := $(if $(LOCKED),$(STAMP),$(VENV)/.supply-chain)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := install
.PHONY: install demo test lint bench lock audit licences sbom coverage clean

install: $(STAMP)

# The stamp makes a second `make install` instant; a change of the requirements renews it.
# The locked set is complete: asked for dependencies too, pip takes the newest release of what another
# package wants with an extra (coverage[toml]), and stops because that has no hash.
$(STAMP): setup.cfg pyproject.toml $(if $(LOCKED),requirements/ci.txt)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(PIP) install --no-deps --require-hashes --only-binary :all: -r requirements/ci.txt
	$(PIP) install --no-deps --no-build-isolation -e .
else
	$(PIP) install -e '.[dev]'
endif
	touch $@

$(VENV)/.supply-chain: $(STAMP)
	$(PIP) install -e '.[supply-chain]'
	touch $@

demo: $(STAMP)
	$(BIN)/compress-export --board jetson.yaml --force

# One thread per worker: two workers with a thread pool each would fight over two cores. A file's
# tests stay together, since they share jobs that take long.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# The same with what it reaches; parallel runs and the processes that tests start are combined.
coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	if command -v actionlint >/dev/null; then actionlint; else echo "no actionlint here"; fi
	if test -x $(BIN)/hadolint; then $(BIN)/hadolint Dockerfile; else echo "no hadolint here"; fi

# The published tables of an hour or two that want nothing but the demo's result.
BENCHES = calibration compat estimators exactness latency_table loading speedup start step unstructured
bench: demo
	set -e; for name in $(BENCHES); do \
	    echo "== $$name"; $(BIN)/python -m benchmarks.bench_$$name; done

# One resolution for all Pythons from 3.11. The image takes the CPU builds of torch, which are not on
# PyPI, so it leaves out torch and what only PyPI's builds need.
COMPILE = $(BIN)/uv pip compile --quiet --no-config --default-index https://pypi.org/simple \
    --universal --python-version 3.11 --generate-hashes --no-annotate \
    --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) setup.cfg
lock: $(TOOLS)
	$(COMPILE) --extra dev --extra supply-chain -o requirements/ci.txt
	$(COMPILE) -c requirements/ci.txt --excludes requirements/cuda.txt \
	    --no-emit-package torch --no-emit-package torchvision -o requirements/image.txt
	sed -n -E 's/^(torch|torchvision)==([^ ]+).*/\1==\2/p' requirements/ci.txt >requirements/torch.txt

# REQUIRED=--required fails where the database of vulnerabilities is out of reach.
audit: $(TOOLS)
	$(BIN)/python -m tools.audit $(REQUIRED) requirements/ci.txt

# CHECK=--check compares instead of writing.
licences: $(TOOLS)
	$(BIN)/python -m tools.licences $(CHECK)

SBOM ?= sbom.cdx.json
sbom: $(TOOLS)
	cat requirements/image.txt requirements/torch.txt | $(BIN)/cyclonedx-py requirements \
	    --output-reproducible --output-file $(SBOM) -

clean:
	rm -rf -- '$(VENV)' build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
