# make setup   .venv with everything, Horovod compiled against TensorFlow and MPI (LOCKSTEP_MPI=system, GPU=1: see launch/setup.sh)
# make train   the main job on two workers            make test    the whole test suite
# make lint    ruff                                   make clean   remove .venv and caches
.PHONY: setup train test lint clean

WORKERS ?= 2
BIN := .venv/bin
export LOCKSTEP_MPI GPU

setup:
	@bash launch/setup.sh

train: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" horovodrun -np $(WORKERS) python launch/train.py $(ARGS)

test: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m pytest $(ARGS)

lint: setup
	@$(BIN)/ruff check .

clean:
	rm -rf .venv .uv .setup.log .setup-wheels .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
