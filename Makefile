# Each target sets up what it needs: a .venv with the versions of requirements.lock. Apache Beam, for
# the preparation of videos on a cluster, has one of its own.
PYTHON ?= python3
VENV ?= .venv
BEAM ?= .venv-beam
SEED ?= 0

BIN := $(VENV)/bin
READY := $(VENV)/.ready
BEAM_READY := $(BEAM)/.ready

.PHONY: demo demo-video ablation bench test test-all lint audit format docs lock clean

# Trains a plain ViT and a TokenLearner ViT on the digits and sets them side by side.
demo: $(READY)
	$(BIN)/python -m benchmarks.demo --seed=$(SEED) $(DEMO)

# The same with ViViTs on videos of digits that move.
demo-video: $(READY)
	$(BIN)/python -m benchmarks.demo moving_digits --seed=$(SEED) $(DEMO)

# Trains every tokenizer and fuser on the digits, and bottleneck models on moving digits, three seeds
# each: about two hours on two cores.
ablation: $(READY)
	$(BIN)/python -m benchmarks.ablation $(ABLATION)

# Times steps, input, attention, the loop, imports and compilation: about ten minutes on two cores.
bench: $(READY)
	$(BIN)/python -m benchmarks.bench $(BENCH)

# The tests that do not take long; test-all has all. `make test-all TESTS=tests/test_fuser.py` runs a file.
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: $(READY)
	$(PYTEST) -m 'not slow' $(TESTS)
test-all: $(READY) $(BEAM_READY)
	BEAM_PYTHON=$(abspath $(BEAM))/bin/python $(PYTEST) $(TESTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.supply_chain
	$(BIN)/shellcheck docs/launch/*.sh .ci/run
	$(BIN)/python -m compileall -q main.py setup.py benchmarks configs datasets tests token_learner trainers
	for lock in requirements requirements-beam; do cp $$lock.lock $(VENV)/$$lock.lock; done
	$(LOCK) setup.py --extra test --output-file $(VENV)/requirements.lock
	$(LOCK) --group beam --output-file $(VENV)/requirements-beam.lock
	for lock in requirements requirements-beam; do diff $$lock.lock $(VENV)/$$lock.lock || exit 1; done

# Asks PyPI for what is known of the versions of both locks; one that it does not know is an error.
audit: $(READY)
	for lock in requirements requirements-beam; do \
		$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement $$lock.lock || exit 1; done

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The docs as a site, in site/index.html.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# One resolution for every Python from 3.11 on; `make lock UPGRADE=--upgrade` takes newer versions.
LOCK = $(BIN)/uv pip compile --universal --python-version 3.11 \
	--generate-hashes --no-annotate --custom-compile-command 'make lock' --quiet $(UPGRADE)
lock: $(READY)
	$(LOCK) setup.py --extra test --output-file requirements.lock
	$(LOCK) --group beam --output-file requirements-beam.lock

$(READY): requirements.lock
	@echo 'setting up $(VENV), which takes some minutes'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	touch $(READY)

$(BEAM_READY): requirements-beam.lock
	@echo 'setting up $(BEAM)'
	$(PYTHON) -m venv $(BEAM)
	$(BEAM)/bin/python -m pip install --quiet --require-hashes -r requirements-beam.lock
	touch $(BEAM_READY)

clean:
	rm -rf $(VENV) $(BEAM)
