# Each target sets up what it needs: a .venv with the versions of requirements.lock.
PYTHON ?= python3
VENV ?= .venv
SEED ?= 0

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo ablation test lint format lock clean

# Trains a plain ViT and a TokenLearner ViT on the digits and sets them side by side.
demo: $(READY)
	$(BIN)/python -m benchmarks.demo --seed=$(SEED) $(DEMO)

# Trains every tokenizer and fuser on the digits, three seeds each: about an hour on two cores.
ablation: $(READY)
	$(BIN)/python -m benchmarks.ablation $(ABLATION)

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck docs/launch/*.sh .ci/run
	$(BIN)/python -m compileall -q main.py setup.py benchmarks configs datasets tests token_learner trainers
	cp requirements.lock $(VENV)/requirements.lock
	$(LOCK) --output-file $(VENV)/requirements.lock
	diff requirements.lock $(VENV)/requirements.lock

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One resolution for every Python from 3.11 on; `make lock UPGRADE=--upgrade` takes newer versions.
LOCK = $(BIN)/uv pip compile setup.py --extra test --universal --python-version 3.11 \
	--generate-hashes --no-annotate --custom-compile-command 'make lock' --quiet $(UPGRADE)
lock: $(READY)
	$(LOCK) --output-file requirements.lock

$(READY): requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	touch $(READY)

clean:
	rm -rf $(VENV)
