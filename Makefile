# Everything a person runs. All state lies in MLED_HOME (.mled by default); `mled settings`
# lists what can be set through MLED_… variables.
.DEFAULT_GOAL := help
.PHONY: help up down status logs reset test test-long lint analyst docs bench screenshots lock install

PYTHON ?= python3.11
MLED := .venv/bin/mled
INSTALL = @command -v $(PYTHON) >/dev/null || { \
	echo "make: $(PYTHON) is not there: install Python 3.11 (Debian: apt-get install python3.11 python3.11-venv)" \
	"or name one: make $@ PYTHON=/path/to/python3.11" >&2; exit 1; }; $(PYTHON) include/mled/install.py
INSTALLED = @test -x $(MLED) || { echo "make: nothing is installed yet: make up" >&2; exit 1; };

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## install both Python environments, nothing else
	$(INSTALL)

up: ## install, start everything and run the demo on the first start (DEMO=0: without it)
	$(eval BEGAN := $(shell date +%s.%N))
	$(INSTALL) && $(MLED) up --began $(BEGAN) $(if $(filter 0,$(DEMO)),--no-demo)

down: ## stop everything
	$(INSTALLED) $(MLED) down

status: ## show what runs
	$(INSTALLED) $(MLED) status

logs: ## follow the logs (NAME=scheduler: only that one)
	$(INSTALLED) $(MLED) logs $(NAME)

reset: ## stop everything and delete all state, after asking (YES=1: without asking)
	$(INSTALLED) $(MLED) reset $(if $(filter 1,$(YES)),--yes)

test: ## run the tests, with all the set-up they need
	$(INSTALL) --tests && .venv/bin/pytest -m "not long" -n logical --maxprocesses 4 --no-loadscope-reorder

test-long: ## run the tests that take minutes each
	$(INSTALL) --tests && .venv/bin/pytest -m long

lint: ## check style and formatting
	$(INSTALL) --tests && .venv/bin/ruff check . && .venv/bin/ruff format --check . \
		&& .venv/bin/sqlfmt --check --no-progressbar -l 100 dbt_project/models dbt_project/tests

analyst: ## build new and changed dbt models in a private copy of the mart
	$(INSTALLED) $(MLED) warehouse analyst

docs: ## serve the documentation of the warehouse (PORT=8090)
	$(INSTALLED) $(MLED) warehouse docs --port $(or $(PORT),8090)

lock: ## write the lock files anew from the .in files
	$(INSTALL) --lock

screenshots: ## take the README's pictures anew from what runs
	$(INSTALL) --tests && .venv/bin/python -m tests.e2e.screenshots

bench: ## run a benchmark (NAME=…, SIZE=…)
	@test -n "$(NAME)" || { echo "make: which one? make bench NAME=… (see bench/)" >&2; exit 1; }
	$(INSTALL) && SIZE=$(SIZE) .venv/bin/python -m bench.$(NAME)
