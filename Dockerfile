# Lockstep in a container.  Default: CUDA, Horovod with NCCL.
#
#   docker build -t lockstep .
#   docker run --rm --gpus all --shm-size 1g lockstep horovodrun -np 2 python launch/train.py
#
# CPUs only:
#
#   docker build -t lockstep:cpu --build-arg GPU=0 \
#       --build-arg BASE_IMAGE=ubuntu:24.04 --build-arg RUNTIME_IMAGE=ubuntu:24.04 .
#   docker run --rm --shm-size 1g lockstep:cpu horovodrun -np 2 python launch/train.py
#
# Own images and results: -v /data/flowers:/data:ro -v "$PWD/runs":/home/lockstep/lockstep/runs (writable by user 1001).
# The ranks of one host exchange gradients through /dev/shm, for which Docker's 64 MB are too few.
#
# Across hosts, over InfiniBand: --network host --device /dev/infiniband --ulimit memlock=-1 (docs/clusters.md).
#
# Without an engine: launch/install/build_image.sh.  What was built, and when: docs/built.md.

# With GPU=1 the first image needs nvcc; the second needs no CUDA, its libraries come with the Python packages.
# Both must have the same python3, 3.11 or 3.12.
ARG BASE_IMAGE=nvidia/cuda:12.6.3-devel-ubuntu24.04
ARG RUNTIME_IMAGE=nvidia/cuda:12.6.3-base-ubuntu24.04

FROM ${BASE_IMAGE} AS build
ARG GPU=1
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates g++ make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
# .venv holds absolute paths, so it is made where it will be used.
RUN useradd --create-home --uid 1001 lockstep
USER lockstep
RUN mkdir /home/lockstep/lockstep
WORKDIR /home/lockstep/lockstep
# Only what the setup reads: a change elsewhere in the program does not compile Horovod again.
COPY --chown=lockstep Makefile pyproject.toml requirements.txt requirements-gpu.txt requirements-export.txt ./
COPY --chown=lockstep launch/install/ launch/install/
RUN make setup GPU=${GPU} && rm -rf /home/lockstep/.cache
# What only compiling and the tests need, and the tests run in a checkout: 0.7 of 2.5 GB of .venv.
RUN .venv/bin/python -m pip uninstall --quiet --yes cmake libclang ruff scikit-learn scipy uv \
    && rm -rf .venv/lib/python3.*/site-packages/tensorflow/include \
    && strip --strip-debug .venv/lib/python3.*/site-packages/horovod/tensorflow/mpi_lib*.so

FROM ${RUNTIME_IMAGE}
# make for the README's commands, the ssh client for horovodrun across hosts; the rest is InfiniBand's, which NCCL and
# Open MPI look for at run time.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates make openssh-client python3 libibverbs1 ibverbs-providers librdmacm1 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1001 lockstep
USER lockstep
RUN mkdir /home/lockstep/lockstep
WORKDIR /home/lockstep/lockstep
COPY --from=build --chown=lockstep /home/lockstep/lockstep/.venv .venv
COPY --chown=lockstep . .
ENV PATH=/home/lockstep/lockstep/.venv/bin:$PATH
CMD ["make", "train"]
