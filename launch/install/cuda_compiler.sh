#!/usr/bin/env bash
# Lay out the compiler of CUDA 12.4 in a folder, from Debian 13's packages, without installing them.
#
#   bash launch/install/cuda_compiler.sh FOLDER && PATH=FOLDER/bin:$PATH make setup GPU=1
#
# For machines without CUDA, such as those that run `make test-gpu-build`; 1 GB is fetched, 200 MB stay.  It runs on any
# Debian from 12 on, takes no root and adds nothing to apt's own lists.  PyPI's nvidia-cuda-nvcc-cu12 would not do: it
# has ptxas, but neither nvcc nor the CUDA runtime that nvcc links.
set -euo pipefail

fail() { printf 'cuda_compiler: %s\n' "$@" >&2; exit 2; }

[ $# = 1 ] || fail "one argument was expected, the folder to make"
[ ! -e "$1" ] || fail "$1 is there already; name a folder that is not"
mirror=$(apt-get indextargets --format '$(REPO_URI) $(LABEL)' | awk '$2 == "Debian" { print $1; exit }')
[ -n "$mirror" ] || fail "apt knows no mirror of Debian; run apt-get update as root first"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/files"
echo "deb $mirror trixie main non-free" >"$work/sources.list"
apt() {
    apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update >"$work/log" 2>&1 && (cd "$work/debs" && apt download nvidia-cuda-toolkit nvidia-cuda-dev libcudart12 libcu++-dev) \
    >>"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; fail "Debian 13's packages could not be fetched from $mirror"; }
for package in "$work"/debs/*.deb; do
    # Of nvidia-cuda-dev's 2.5 GB nearly all is mathematics.
    dpkg --fsys-tarfile "$package" | tar -x -C "$work/files" --wildcards --no-wildcards-match-slash \
        --exclude='./usr/share' --exclude='./usr/lib/*/lib[!c]*' --exclude='./usr/lib/*/libc[!u]*' \
        --exclude='./usr/lib/*/libcu[!d]*' --exclude='./usr/lib/nvidia-cuda-toolkit/compute-sanitizer'
done

# Debian scatters it over /usr; here it is the tree that NVIDIA's own installer makes.
usr=$work/files/usr
made=$work/toolkit
mkdir -p "$made/lib64" "$made/nvvm/bin"
cp -r "$usr/include" "$made/include"
cp -r "$usr/bin" "$made/bin"
cp -r "$usr"/lib/nvidia-cuda-toolkit/bin/{nvcc,crt} "$made/bin/"
cp "$usr/lib/nvidia-cuda-toolkit/bin/cicc" "$made/nvvm/bin/"
cp -r "$usr/lib/nvidia-cuda-toolkit/libdevice" "$made/nvvm/"
cp -a "$usr"/lib/x86_64-linux-gnu/libcuda*rt* "$made/lib64/"
cat >"$made/bin/nvcc.profile" <<'PROFILE'
TOP                 = $(_HERE_)/..
NVVMIR_LIBRARY_DIR  = $(TOP)/nvvm/libdevice
PATH               += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES           += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES           =+ $(_SPACE_) "-L$(TOP)/lib64"
PROFILE
"$made/bin/nvcc" --version >/dev/null || fail "the nvcc of Debian 13's packages does not run on this machine"
mv "$made" "$1"
