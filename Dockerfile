# Lockstep in a container.  Default: CUDA, Horovod with NCCL.
#
#   docker build -t lockstep .
#   docker run --rm --gpus all --shm-size 1g lockstep horovodrun -np 2 python launch/train.py
#
# CPUs only:
#
#   docker build -t lockstep:cpu --build-arg BASE_IMAGE=debian:12 --build-arg RUNTIME_IMAGE=debian:12 --build-arg GPU=0 .
#   docker run --rm --shm-size 1g lockstep:cpu horovodrun -np 2 python launch/train.py
#
# Own images and results: -v /data/flowers:/data:ro -v $PWD/runs:/home/lockstep/lockstep/runs   (runs writable by user 1000)
# /dev/shm: the ranks of one host exchange gradients there; Docker's 64 MB are too few.

# For GPU=1 the first image needs nvcc and the second only the C library: CUDA comes with the Python packages in .venv.
ARG BASE_IMAGE=nvidia/cuda:12.5.1-devel-ubuntu22.04
ARG RUNTIME_IMAGE=nvidia/cuda:12.5.1-base-ubuntu22.04

FROM ${BASE_IMAGE} AS build
ARG GPU=1
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ git make python3.11 python3.11-venv \
    && rm -rf /var/lib/apt/lists/*
# .venv holds absolute paths, so it is made where it will be used.
RUN useradd --create-home --uid 1000 lockstep
USER lockstep
WORKDIR /home/lockstep/lockstep
# Only what the setup reads: a change of the program does not compile Horovod again.
COPY --chown=lockstep Makefile pyproject.toml requirements.txt requirements-gpu.txt ./
COPY --chown=lockstep launch/setup.sh launch/
RUN make setup GPU=${GPU} && rm -rf /home/lockstep/.cache

FROM ${RUNTIME_IMAGE}
ARG GPU=1
ENV DEBIAN_FRONTEND=noninteractive
# g++ and make serve no run; git is for people. horovodrun asks for ssh only when it is given other hosts.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates make openssh-client python3.11 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 lockstep
USER lockstep
WORKDIR /home/lockstep/lockstep
COPY --from=build --chown=lockstep /home/lockstep/lockstep/.venv .venv
COPY --chown=lockstep . .
# GPU: make train and make test then find the stamp of this very setup and install nothing.
ENV PATH=/home/lockstep/lockstep/.venv/bin:$PATH GPU=${GPU}
CMD ["make", "train"]
