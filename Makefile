PYTHON ?= python3
BIN = .venv/bin

.PHONY: sweep reproduce systems figures test test-slow bench bench-accelerator clean
EXPERIMENTS = phase_diagram bad_teachers partial_labels additive_noise self_training bounds \
              certificates measured_labels
SYSTEMS = weighted_soft_labels meta_labels robust_fairness segmentation label_worth \
          label_pruning wide_distillation molecule_search sibling_clips

sweep: .venv/ready  ## The phase diagram on digits: results/phase_diagram/digits
	$(BIN)/python -m experiments.phase_diagram --preset digits

reproduce: .venv/ready  ## The paper's experiments on digits, then docs/reproduction.md: under 40 minutes
	@for name in $(EXPERIMENTS); do \
	  $(BIN)/python -m experiments.$$name --preset digits || exit 1; \
	done
	$(BIN)/python -m experiments.reproduction

systems: .venv/ready  ## The other systems on soft labels, on digits, then docs/reproduction.md
	@for name in $(SYSTEMS); do \
	  $(BIN)/python -m experiments.$$name --preset digits || exit 1; \
	done
	$(BIN)/python -m experiments.reproduction
	$(BIN)/python -m experiments.across_systems

figures: .venv/ready  ## Every figure again, from the tables under docs/results and results
	@for folder in $(wildcard docs/results/*/*/ results/*/*/); do \
	  [ -f $$folder/results.parquet ] || continue; \
	  name=$$(basename $$(dirname $$folder)); preset=$$(basename $$folder); \
	  $(BIN)/python -m experiments.$$name --preset $$preset --plot-only --out $$folder || exit 1; \
	done

test: .venv/ready  ## Format, lint, types, unit tests, doctests, every tiny preset
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check
	@# Most of the time goes into compiling, of small programs: without optimisations, and by the
	@# older of XLA's ways, which is the quicker one for those. test-slow compiles as users do.
	@# By file: tests of one file share what is trained once for them.
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 XLA_FLAGS=--xla_cpu_use_fusion_emitters=false \
	  $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow

BENCHMARKS = digits_sweep networks engine indicators_at_scale inner_loop audit rooms

bench: .venv/ready  ## Beside PyTorch and themselves, on this machine; then docs/performance.md
	$(BIN)/pip install --quiet torch==2.13.0
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name || exit 1; done
	$(BIN)/python -m benchmarks.page

bench-accelerator:  ## The same where $(PYTHON) has JAX and PyTorch for an accelerator
	export XLA_PYTHON_CLIENT_PREALLOCATE=false; $(PYTHON) -m benchmarks.digits_sweep --students 4096
	@export XLA_PYTHON_CLIENT_PREALLOCATE=false; for name in networks engine indicators_at_scale inner_loop; do \
	  $(PYTHON) -m benchmarks.$$name || exit 1; \
	done

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
