# Two commands set everything up on a fresh machine: make demo, make test. Python 3.11-3.13 with pip is all they need.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check soak evidence format clean

demo: .venv/runtime
	$(BIN)/orpo demo

test: .venv/development
	$(BIN)/python -m pytest -m "not soak"

check: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not soak"

soak: .venv/development
	$(BIN)/python -m pytest -m soak -n 0 -s --durations=0

# Runs what is not recorded yet and writes docs/evidence.md. ONLY=weights: one experiment anew; FRESH=1: everything anew, about two hours.
evidence: .venv/runtime
	$(BIN)/python -m evidence $(if $(ONLY),--only $(ONLY)) $(if $(FRESH),--fresh)

format: .venv/development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pinned versions: constraints.txt. torch goes first, so that no other requirement chooses its build.
.venv/runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/development: .venv/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
