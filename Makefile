# Two commands set everything up on a fresh machine with python3 >= 3.11 and git:
#   make reproduce    train, measure, build the site      make test    check everything
PYTHON   ?= python3
CORES    ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
PROFILE  ?= smoke
DATASETS ?=
STUDY    ?=
SEEDS    ?=
RUNS     ?= _runs
BIN      := .venv/bin

.PHONY: reproduce test test-all site lab clean
.DEFAULT_GOAL := reproduce

.venv/.installed: settings.ini setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "robustacc needs Python 3.11 or newer; say which with make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -e '.[dev]'
	-$(BIN)/python -m pip install --no-deps torchattacks==3.5.1  # a peer for tests and benchmarks; its own pins would downgrade others
	touch $@

reproduce: .venv/.installed  ## train and measure the rows of a profile, then build the site
	$(BIN)/python -m snakemake --snakefile workflow/Snakefile --workflow-profile workflow/profiles/default \
	  --cores $(CORES) --config profile=$(PROFILE) datasets="$(DATASETS)" study="$(STUDY)" seeds="$(SEEDS)" runs="$(RUNS)"
	@echo
	@echo "The results site is built. Open file://$(CURDIR)/_docs/index.html"

test: .venv/.installed  ## everything that takes less than a quarter of an hour
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers $(CORES)
	$(BIN)/python -m pytest tests -m "not slow"
	@echo "Left out: the slow tests (make test-all runs them)"

test-all: .venv/.installed  ## every test
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers $(CORES) --flags slow
	$(BIN)/python -m pytest tests

site: .venv/.installed  ## build the site from the records and pages there are
	$(BIN)/python -m robustacc.site --runs $(RUNS)

lab: .venv/.installed  ## open the notebooks
	$(BIN)/python -m jupyter lab nbs

clean:  ## remove what is built; your runs and .venv stay
	rm -rf _proc _docs build dist *.egg-info .snakemake
