PYTHON ?= python3
BIN = .venv/bin

.PHONY: sweep test test-slow bench clean

sweep: .venv/ready  ## The phase diagram on digits: results/phase_diagram/digits
	$(BIN)/python -m experiments.phase_diagram --preset digits

test: .venv/ready  ## Format, lint, types, unit tests, doctests, every tiny preset
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check
	$(BIN)/python -m pytest -n 2

test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow

bench: .venv/ready
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/python -m benchmarks.digits_sweep

clean:
	rm -rf .venv results

# Built anew whenever the dependencies change, never half: the stamp is the last thing written.
.venv/ready: requirements.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jsoft needs Python >= 3.11, '$(PYTHON)' is older; try: make PYTHON=python3.12 ..."; exit 1; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt -e '.[dev]'
	touch $@
