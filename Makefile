# make setup   .venv with everything, Horovod compiled against TensorFlow and MPI (LOCKSTEP_MPI=system, GPU=1, EXPORT=1: see launch/install/setup.sh)
# make train   the main job, a worker per GPU or two  make test    the test suite
# make lint    ruff                                   make test-faults   the long tests: kills, preemptions, a real Slurm
# make clean   remove .venv and caches                make test-all      both, and what is only thorough
#                                                     make test-gpu      what only a GPU can show (docs/gpu.md)
#                                                     make test-tools    what the long tests need from Debian, as root
.PHONY: setup train test test-faults test-all test-gpu test-tools lint clean

# A worker per GPU of this machine; two where there is none.
GPUS := $(wildcard /dev/nvidia[0-9] /dev/nvidia[0-9][0-9])
WORKERS ?= $(or $(filter-out 0,$(words $(GPUS))),2)
# Test files run two at a time: much of a run is one thread that traces graphs, or a wait for what was killed.
TESTS := python -m pytest --numprocesses 2 --dist loadfile
BIN := .venv/bin
export LOCKSTEP_MPI GPU EXPORT

setup:
	@bash launch/install/setup.sh

train: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" horovodrun -np $(WORKERS) python launch/train.py $(ARGS)

test: setup
	@rm -f .faults.jsonl
	@PATH="$(CURDIR)/$(BIN):$$PATH" LOCKSTEP_FAULTS="$(CURDIR)/.faults.jsonl" $(TESTS) $(ARGS)

# After make test; both together are what docs/reliability.md counts.
test-faults: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" LOCKSTEP_FAULTS="$(CURDIR)/.faults.jsonl" $(TESTS) --no-loadscope-reorder -m "faults and not thorough" $(ARGS)

test-all: setup
	@rm -f .faults.jsonl
	@PATH="$(CURDIR)/$(BIN):$$PATH" LOCKSTEP_FAULTS="$(CURDIR)/.faults.jsonl" $(TESTS) --no-loadscope-reorder -m "" $(ARGS)

# In slots of under ten minutes: make test-gpu ARGS="-k parity"; docs/gpu.md has the groups.
test-gpu: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m pytest -m gpu $(ARGS)

test-tools:
	@bash tests/helpers/install_tools.sh

lint: setup
	@$(BIN)/ruff check .

clean:
	rm -rf .venv .uv .setup.log .setup-wheels .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
