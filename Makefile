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
# Recipes read these from the environment, whatever characters they contain.
export PYTHON CORES PROFILE DATASETS STUDY SEEDS RUNS
# Tools ask who the user is and where they may keep a cache: without a name it is the number, without a home of its own the environment's folder.
export USER ?= $(shell id -u)
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.venv
endif
# The script by its interpreter: by itself it cannot be started from a folder with quotes in its name.
NBDEV_TEST := OMP_NUM_THREADS=1 $(BIN)/python $(BIN)/nbdev_test --n_workers
# Single tests use one thread; several run at the same time, those of a file one after the other, since they share what they have trained.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --dist loadfile --numprocesses "$$CORES"

.PHONY: reproduce test test-all site lab clean
.DEFAULT_GOAL := reproduce

.venv/.installed: settings.ini setup.py
	"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "robustacc needs Python 3.11 or newer; say which with make PYTHON=...")'
	test -x $(BIN)/python || "$$PYTHON" -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -e '.[dev]'
	-$(BIN)/python -m pip install --no-deps torchattacks==3.5.1  # a peer for tests and benchmarks; its own pins would downgrade others
	-$(BIN)/python -m pip install --no-deps robustbench==1.1.1  # its networks, which ours are compared with
	touch $@

reproduce: .venv/.installed  ## train and measure the rows of a profile, then build the site
	@exec $(BIN)/python -m snakemake --snakefile workflow/Snakefile --workflow-profile workflow/profiles/default \
	  --cores "$$CORES" --config profile="$$PROFILE" datasets="$$DATASETS" study="$$STUDY" seeds="$$SEEDS"
	@exec $(BIN)/python -c 'from pathlib import Path; print("The results site is built. Open", Path("_docs/index.html").absolute().as_uri())'

test: .venv/.installed  ## all but the slow tests: about five minutes on two cores, twice as long on slow ones
	$(NBDEV_TEST) "$$CORES"
	$(PYTEST) -m "not slow"
	@echo "Left out: the slow tests (make test-all runs them)"

test-all: .venv/.installed  ## every test
	$(NBDEV_TEST) "$$CORES" --flags slow
	$(PYTEST)

site: .venv/.installed  ## build the site from the records and pages there are
	$(BIN)/python -m robustacc.site --runs "$$RUNS"

lab: .venv/.installed  ## open the notebooks
	$(BIN)/python -m jupyter lab nbs

clean:  ## remove what is built; your runs and .venv stay
	rm -rf _proc _docs build dist *.egg-info .snakemake
