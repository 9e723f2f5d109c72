# Every task of the project. `make help` lists them; PYTHON, OUT, DATA, RESULTS, WHEEL_DIR can be given on the command line.
PYTHON ?= python3
OUT ?= demo-run
RESULTS ?= $(OUT)/results
WHEEL_DIR ?= dist
TORCH := torch==2.13.0

BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
TYPED := medssl $(wildcard data_prep) $(wildcard benchmarks)
SYSTEM_PACKAGES := chromium slurm-wlm

.DEFAULT_GOAL := help
.PHONY: help setup demo test app bench lint format system-deps wheel clean

help: ## list the tasks
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

setup: $(STAMP) ## make .venv with everything at the versions of constraints.txt

# torch goes first so that a build already chosen for this machine (CPU or GPU) is kept by what follows.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q $(TORCH) -c constraints.txt
	$(PIP) install -q -e '.[app,dicom,dev]' -c constraints.txt
	touch $@

demo: setup ## the whole flow in one go, on a generated cohort or on DATA=folder (KEEP_TOGETHER=1: equal scans in one split)
	$(BIN)/medssl demo --out "$(OUT)" $(if $(DATA),--data "$(DATA)") $(if $(KEEP_TOGETHER),--keep-together) || [ $$? -eq 1 ] # 1: done, some scans were left out

test: setup lint ## what CI runs: lint, then every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: setup ## formatting, rules, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(TYPED)
	MYPYPATH=app $(BIN)/mypy app
	$(BIN)/lint-imports

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

app: setup ## open the app on RESULTS=folder
	$(BIN)/medssl review "$(RESULTS)"

bench: setup ## run every benchmark, one after the other
	@set -e; for file in $(filter-out %/__init__.py %/peers.py,$(wildcard benchmarks/*.py)); do \
		name=$$(basename "$$file" .py); echo "== $$name"; $(BIN)/python -m "benchmarks.$$name"; \
	done

system-deps: ## what tests drive: a browser, a SLURM that they start themselves (Debian and its relatives)
	@command -v apt-get >/dev/null || { echo "no apt-get here: install $(SYSTEM_PACKAGES) by hand"; exit 0; }; \
	missing=$$(for name in $(SYSTEM_PACKAGES); do \
		dpkg-query -W -f '$${Status}' "$$name" 2>/dev/null | grep -q 'ok installed' || echo "$$name"; done); \
	test -n "$$missing" || exit 0; \
	sudo=$$(test "$$(id -u)" = 0 || echo sudo); \
	$$sudo apt-get update -q && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -q -y --no-install-recommends $$missing

wheel: setup ## build the wheel into WHEEL_DIR
	$(BIN)/python -m build --wheel --no-isolation --outdir "$(WHEEL_DIR)"

clean: ## remove what the tasks above made, but not .venv
	rm -rf build dist demo-run .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
