# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
# Keeps BLAS and torch from fighting over the cores with the simulated beamline.
export OMP_NUM_THREADS ?= 2

.PHONY: demo test lint docs weights clean

$(BIN)/.demo-stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[sr,page]'
	touch $@

$(BIN)/.dev-stamp: $(BIN)/.demo-stamp
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[sr,train,tiled-server,databroker,queue,epics,files,documents,dask,zmq,kafka,stomp,watch,page,dev]'
	touch $@

demo: $(BIN)/.demo-stamp
	$(BIN)/xrf-sr demo --out out/demo

# Files of tests are shared out to one process more than there are cores, as many tests wait, and to
# four at most. They are as nice as can be, because then what is started and makes itself nicer, as
# catalogs do, is not starved by them. Which files come first is said in tests/conftest.py.
PROCESSES ?= $(shell n=$$(($$(nproc) + 1)); echo $$((n < 4 ? n : 4)))
test: $(BIN)/.dev-stamp
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder --durations 40

# The wheel is built from the sdist, so that its content tells of both. Types and layers are
# checked on the unpacked wheel: only there does callbacks/ lie where it is imported from.
lint: $(BIN)/.dev-stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build dist
	$(BIN)/python -m build -q --outdir dist . 2>/dev/null
	$(BIN)/python scripts/check_wheel.py dist/*.whl
	$(BIN)/python -m zipfile -e dist/*.whl build/flat
	cp pyproject.toml build/flat/
	cd build/flat && $(abspath $(BIN))/lint-imports --no-cache
	cd build/flat && $(abspath $(BIN))/pyright --pythonpath $(abspath $(BIN))/python

docs: $(BIN)/.dev-stamp
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# The weights that ship, from nothing: the network of each element, then the trunk that a map has
# once beside it, then both for longer; after that calibration, trust boundary and figures, and what
# surveys are designed by. make weights REAL=FOLDER; on a GPU or a CPU.
RUN = out/weights
TRAIN = $(BIN)/xrf-sr train --real-maps $(REAL)
weights: $(BIN)/.dev-stamp
	@test -d "$(REAL)" || { echo "make weights REAL=FOLDER: a folder of measured maps is needed"; exit 2; }
	$(TRAIN) --out $(RUN)/light --set shared_filters=0
	$(TRAIN) --out $(RUN)/trunk --from $(RUN)/light/weights.safetensors --set steps=4400 \
		--set steps_per_epoch=400 --set warmup_steps=100 --set started_rate=0.3 --set real_share=0.45 --set seed=7
	$(TRAIN) --out $(RUN)/shared --from $(RUN)/trunk/weights.safetensors --set steps=12000 \
		--set steps_per_epoch=500 --set warmup_steps=200 --set learning_rate=0.0008 --set real_share=0.45 --set seed=11
	$(BIN)/python scripts/ship_model.py $(RUN)/shared --before $(RUN)/light $(RUN)/trunk \
		--real $(REAL) --per-family 3
	$(BIN)/python benchmarks/survey_design.py --write --real $(REAL)

clean:
	rm -rf build dist out $(VENV)
