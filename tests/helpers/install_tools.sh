#!/usr/bin/env bash
# What some tests need besides make setup, on Debian or Ubuntu as root: strace (crash enumeration), Slurm, munge and PMIx
# (a real cluster of two nodes on this machine), iproute2 (slow links for the benchmark).  Tests whose tool is missing are
# skipped, and say so.  Nothing that is installed here is left running.
set -euo pipefail

tools=(strace slurmctld slurmd slurm-client munge libpmix-dev iproute2)
missing=()
for tool in "${tools[@]}"; do
    [ "$(dpkg-query -W -f '${Status}' "$tool" 2>/dev/null)" = "install ok installed" ] || missing+=("$tool")
done
[ ${#missing[@]} -gt 0 ] || exit 0
[ "$(id -u)" = 0 ] || { echo "install_tools: not root, so without ${missing[*]}; tests that need them are skipped"; exit 0; }

# Debian starts a service as soon as it is installed; these must not run.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null || true
apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null ||
    echo "install_tools: ${missing[*]} could not be installed; tests that need them are skipped"
