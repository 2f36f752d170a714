#!/usr/bin/env bash
# Build the Dockerfile's CPU variant where no container engine is at hand, and train in it on two ranks.
#
#   apt-get install --no-install-recommends buildah debootstrap
#   bash launch/install/build_image.sh            as root
#   MIRROR=http://mirror/debian bash launch/install/build_image.sh
#
# What is built is the last commit of this checkout.  Both base images are Debian 12, made by debootstrap.  The image
# stays as localhost/lockstep:cpu in buildah's storage; `buildah push lockstep:cpu docker-archive:lockstep.tar` hands it on.
set -euo pipefail
cd -P "$(dirname "$0")/../.."

fail() { printf 'build_image: %s\n' "$@" >&2; exit 2; }
say() { printf 'build_image: %s\n' "$*"; }

[ "$(id -u)" = 0 ] || fail "this needs root, as debootstrap does"
for tool in buildah debootstrap git; do
    command -v "$tool" >/dev/null || fail "$tool is not on PATH; install it, for example: apt-get install --no-install-recommends $tool"
done

# chroot: no namespaces are asked for, which many containers and virtual machines do not grant.
export BUILDAH_ISOLATION=chroot
work=$(mktemp -d) container=""
leave() {
    [ -z "$container" ] || buildah rm "$container" >/dev/null
    rm -rf "$work"
}
trap leave EXIT

make_base() {
    say "Debian 12 by debootstrap"
    debootstrap --variant=minbase bookworm "$work/debian" ${MIRROR:+"$MIRROR"} >"$work/debootstrap.log" ||
        { tail -n 5 "$work/debootstrap.log" >&2; fail "debootstrap failed"; }
    rm -rf "$work/debian/var/cache/apt/archives/"*.deb "$work/debian/var/lib/apt/lists/"*
    # A network may have an authority of its own, which this machine trusts; uv looks at the system's list only if told.
    mkdir -p "$work/debian/usr/local/share/ca-certificates"
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp -t "$work/debian/usr/local/share/ca-certificates" {} +
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$work/debian" / >/dev/null
    buildah config --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt "$container"
    buildah commit --quiet --rm "$container" lockstep-debian >/dev/null
    container=""
    rm -rf "$work/debian"
}

build() {
    say "building commit $(git rev-parse --short HEAD)"
    git clone --quiet . "$work/lockstep"
    buildah build --build-arg GPU=0 --build-arg BASE_IMAGE=localhost/lockstep-debian \
        --build-arg RUNTIME_IMAGE=localhost/lockstep-debian --tag lockstep:cpu "$work/lockstep"
}

# As the image's own user, and with the image's own command, which must find everything installed.
train() {
    say "training in it"
    container=$(buildah from localhost/lockstep:cpu)
    buildah run "$container" -- sh -c 'echo "user: $(id)"; du -sh --exclude=/proc --exclude=/sys --exclude=/dev / 2>/dev/null; du -sh .venv'
    buildah run "$container" -- make train ARGS="--epochs 1"
}

began=$(date +%s)
make_base
build
train
buildah images --filter reference=localhost/lockstep
say "done after $(($(date +%s) - began)) s: commit $(git rev-parse --short HEAD) was built and trained"
