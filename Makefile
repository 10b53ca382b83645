# Two commands set everything up on a fresh machine with Python 3.12 or later:
#   make demo   environment, training on the embedded data, molecular dynamics, figures
#   make test   environment, linter, types, tests (the wheel in a clean environment among them)
# Others: make lint (linter and types alone), make test-lowest (tests with the oldest versions that pyproject.toml admits),
# make slow (tests that take minutes), make bench (time and memory; REFERENCE=clone of the code of the paper),
# make lowest-versions (writes constraints-lowest.txt; needed after a change of a bound)

PYTHON ?= $(shell command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
LOWEST := .venv-lowest
# with CONSTRAINTS=/dev/null a new environment has the newest versions that pyproject.toml admits
CONSTRAINTS := constraints.txt
DEMO := demo
# a short demo, to see that all of it works: make demo TRAIN=trainer.max_epochs=3 STUDY='--seconds 20 --picoseconds 1 --every-ps 0.2 --starts 1'
TRAIN :=
STUDY := --seconds 240 --picoseconds 5 --starts 2

.PHONY: env lint test test-lowest lowest-versions slow bench demo clean

env: $(VENV)/.complete

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
		{ echo "spk_dt needs Python 3.12 or later; choose one with: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.complete: pyproject.toml $(CONSTRAINTS) | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --editable '.[test,reference,report]'
	touch $@

# Python 3.12 whatever PYTHON is: the oldest versions have no wheels for later ones.
$(LOWEST)/.complete: pyproject.toml constraints-lowest.txt | $(BIN)/uv
	$(BIN)/uv venv --quiet --clear --python 3.12 $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		--constraint constraints-lowest.txt --editable '.[test,reference,report]'
	touch $@

# Packages of CUDA are left out: PyTorch names their versions itself.
lowest-versions: $(BIN)/uv
	{ echo '# The oldest versions that pyproject.toml admits, and what goes with them; written by: make lowest-versions'; \
		$(BIN)/uv pip compile --quiet --no-header --no-annotate --python-version 3.12 --resolution lowest-direct \
			--extra test --extra reference --extra report pyproject.toml | grep -vE '^(nvidia|cuda)-'; \
		} > constraints-lowest.txt

lint: env
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Without the tests of the wheel, which choose versions of their own, and of compilation, which needs PyTorch 2.13.
test-lowest: $(LOWEST)/.complete
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile --ignore tests/test_wheel.py --ignore tests/test_compiled.py

slow: env
	$(BIN)/python -m pytest -m slow

bench: env
	$(BIN)/python -m benchmarks $(if $(REFERENCE),--reference $(REFERENCE)) all --out benchmarks.md

demo: env
	mkdir -p $(DEMO)
	cd $(DEMO) && $(BIN)/spktrain experiment=dt_egnn run.id=dt_egnn +seed=0 $(TRAIN)
	cd $(DEMO) && $(BIN)/spkdt plot runs/dt_egnn
	cd $(DEMO) && rm -f start.traj && $(BIN)/spkdt frames start.traj --split test
	cd $(DEMO) && $(BIN)/spkmd calculator.model_file=runs/dt_egnn/best_model system.molecule_file=start.traj \
		system/initializer=frames dynamics.n_steps=400 simulation_dir=md overwrite=true
	cd $(DEMO) && $(BIN)/python $(CURDIR)/tutorials/look_at_a_simulation.py md/simulation.hdf5
	$(BIN)/python -m benchmarks.study run --out $(DEMO)/study --seed 0 --seed 1 --arm control --arm visits_hot \
		$(STUDY)
	$(BIN)/python -m benchmarks.study write --out $(DEMO)/study --results $(DEMO)/RESULTS.md
	cd $(DEMO) && rm -rf evaluation && $(BIN)/spkdt evaluate study/h2_pd6_graphene.db static=study/runs/egnn-control-0 \
		visits=study/runs/egnn-visits_hot-0 --steps 300 --reference tblite:GFN1-xTB --relabel-every 100 --processes 2 \
		--out evaluation
	cd $(DEMO) && $(BIN)/spkdt report evaluation
	@echo "Figures: $(DEMO)/runs/dt_egnn/validation.png, $(DEMO)/md/simulation.png"
	@echo "Does it help, at equal compute: $(DEMO)/RESULTS.md, $(DEMO)/true_error.png"
	@echo "Report:  $(DEMO)/evaluation/report.html"

clean:
	rm -rf $(VENV) $(LOWEST) $(DEMO) dist
