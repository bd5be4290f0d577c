# make demo   decode behaviour from generated spikes: a table, and a figure in demo.png
# make test   the tests; fails if they run less than 95 % of the lines of the package
# make docs   build the documentation and run its examples: docs/_build/html, about ten minutes
# make soak   tests with random input, many examples, then half an hour of memory: hours
# make mutants  mutation tests of the modules in MUTANTS: which changes of the code no test notices
# make results  measure the tables of docs/results.md and README: hours, resumable; needs STNDT_DATA
# make lint   ruff, codespell, mypy
# make dist   build the wheel and the sdist in dist, install each elsewhere and try it out: ten minutes
# make test-matrix  tests on the oldest and newest versions that pyproject.toml allows: half an hour
# make clean  remove the output of tools and of the demo; make distclean: .venv and .venv-matrix too
#
# Each works on a fresh clone: it creates .venv and installs pinned versions first.

# The first interpreter that is new enough and can create a virtual environment (Debian ships
# a Python without ensurepip). Each candidate is run, because a version manager's shim may exist
# for a version that is not installed. To choose another one: make test PYTHON=/path/to/python
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && echo $$python && break; done)
# The tests fit small networks and gain little from more workers; increase it on a large machine.
WORKERS ?= 2
PYTEST_ARGS ?=
# Least share of lines in percent, without those of other processes. PYTEST_ARGS runs part of the
# tests, of which it is not asked.
COVERAGE := 95
# To skip running the examples: make docs SPHINX_ARGS="-D plot_gallery=0"
SPHINX_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin

# Keep packages of other environments out of this one.
unexport PYTHONPATH PYTHONHOME

# Figures are written to files; there may be no display.
export MPLBACKEND = Agg

.DEFAULT_GOAL := help
# With -j, two installations into one environment would conflict.
.NOTPARALLEL:
.DELETE_ON_ERROR:

.PHONY: help demo test test-matrix soak mutants results docs lint dist clean distclean venv

help:
	@sed -n '/^# make/s/^# //p' Makefile

demo: $(VENV)/.installed-plot
	$(BIN)/python examples/plot_demo.py

# One thread per worker: with more, workers compete for cores, and sums that are split over
# threads round differently on different machines.
test: export OMP_NUM_THREADS = 1
test: export MKL_NUM_THREADS = 1
test: export OPENBLAS_NUM_THREADS = 1
# Counting lines costs time: least on Python 3.12 and newer, which counts them by itself.
test: export COVERAGE_CORE = $(shell $(BIN)/python -c 'import sys; \
	print("sysmon" if sys.version_info >= (3, 12) else "ctrace")' 2>/dev/null)
# worksteal gives each worker a contiguous block of tests, so that fixtures of a module are
# mostly built once, and still balances the load if a file takes long.
test: $(VENV)/.installed-test-plot-io $(VENV)/.reference
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal \
		--cov=sklearn_stndt --cov-report=term:skip-covered \
		$(if $(strip $(PYTEST_ARGS)),$(PYTEST_ARGS),--cov-fail-under=$(COVERAGE))

# Only the tests that draw their input, with the profile "long" of hypothesis.
MINUTES ?= 30
soak: export OMP_NUM_THREADS = 1
soak: export MKL_NUM_THREADS = 1
soak: export OPENBLAS_NUM_THREADS = 1
soak: $(VENV)/.installed-test-plot-io
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS) \
		tests/test_fuzz_loaders.py tests/test_fuzz_estimators.py tests/test_state_machine.py
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

# One session for each module, in a copy of the project, so that the sources stay as they are.
# For one module: make mutants MUTANTS=masking
MUTANTS ?= masking losses likelihood cutting segments bits likelihoods structure decoding few_shot
mutants: export OMP_NUM_THREADS = 1
mutants: export MKL_NUM_THREADS = 1
mutants: export OPENBLAS_NUM_THREADS = 1
mutants: $(VENV)/.installed-mutants-test-plot-io
	$(BIN)/python benchmarks/mutants.py $(MUTANTS)

results: export OMP_NUM_THREADS = 1
results: export MKL_NUM_THREADS = 1
results: export OPENBLAS_NUM_THREADS = 1
results: $(VENV)/.installed-plot
	$(BIN)/python benchmarks/results.py

# Examples that did not change since the last build are not run again. One thread, as for the tests,
# makes the figures reproducible on machines of the same kind.
docs: export OMP_NUM_THREADS = 1
docs: export MKL_NUM_THREADS = 1
docs: export OPENBLAS_NUM_THREADS = 1
docs: $(VENV)/.installed-docs-plot-io
	$(BIN)/sphinx-build -W --keep-going -b html $(SPHINX_ARGS) docs docs/_build/html
	@echo "The first page: docs/_build/html/index.html"

lint: $(VENV)/.installed-dev-plot
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

# Without isolation, because pip then builds with the versions of constraints.txt.
dist: $(VENV)/.installed-dist
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tools/check_dist.py dist

# For one version of Python, or all tests: make test-matrix MATRIX_ARGS="--python 3.12 --whole"
MATRIX_ARGS ?=
test-matrix: $(VENV)/.created
	$(BIN)/python tools/test_matrix.py $(MATRIX_ARGS)

venv: $(VENV)/.created

$(VENV)/.created:
	@test -n "$(PYTHON)" || { \
		echo "No Python 3.11 or newer with venv found: install one, or name it," \
			"make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) does not run, or is older than Python 3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One stamp for each set of extras, named after it (.installed-test-plot is "[test,plot]"), so that
# packages are installed again only if pyproject.toml or constraints.txt changed. The output of pip
# goes to a log, whose end is shown if it fails.
comma := ,
$(VENV)/.installed-%: pyproject.toml constraints.txt $(VENV)/.created
	@echo "Installing sklearn-stndt[$(subst -,$(comma),$*)] into $(VENV): minutes, the first time" \
		"(pip's log: $(VENV)/pip.log)"
	@$(BIN)/python -m pip install --progress-bar off -c constraints.txt \
		-e ".[$(subst -,$(comma),$*)]" >$(VENV)/pip.log 2>&1 || { \
		tail -n 30 $(VENV)/pip.log >&2; exit 1; }
	@touch $@

# The benchmark's own evaluator, with which ours is compared. It is installed without dependencies,
# because it requires a pandas that can no longer be installed and is not needed for the scores.
$(VENV)/.reference: constraints.txt $(VENV)/.installed-test-plot-io
	@$(BIN)/python -m pip install --progress-bar off --no-deps -c constraints.txt nlb-tools \
		>>$(VENV)/pip.log 2>&1 || { tail -n 30 $(VENV)/pip.log >&2; exit 1; }
	@touch $@

clean:
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache demo.png examples/demo.png
	rm -rf docs/_build docs/auto_examples docs/api/backreferences docs/api/generated \
		docs/sg_execution_times.rst
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .venv-matrix
