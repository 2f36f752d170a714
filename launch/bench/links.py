"""Slow links on one machine: two network namespaces joined by a veth pair that tc shapes (Linux, root, iproute2).

Each of two ranks lives in a namespace of its own, so that all they exchange passes the link, where it is counted.
"""

import contextlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from launch.bench.contestants import MPIRUN
from launch.bench.runner import BOUND
from launch.job.config import ConfigError

SUBNET = "198.18.0.0/30"  # of the block reserved for benchmarks (RFC 2544); both ends are in namespaces
ADDRESSES = ("198.18.0.1/30", "198.18.0.2/30")
PREFIX = "lockstep-"
BITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


def bits_per_second(rate: str) -> float:
    """``1gbit`` -> 1e9; ``none`` -> infinite.

    Raises:
        ConfigError: anything else.
    """
    number, unit = rate[:-4], rate[-4:]
    if rate == "none":
        return float("inf")
    if unit not in BITS or not number.isdecimal() or int(number) < 1:
        raise ConfigError(f"--rates has {rate!r}; expected rates such as 100mbit or 1gbit, or none")
    return int(number) * BITS[unit]


class Link:
    """A context manager: the link stands from entering to leaving, however that happens.

    Attributes:
        launcher: the words that start two ranks, one at each end, each on one core.
    """

    def __init__(self, folder: Path, cores: list[int]):
        """Args: a folder for the launcher's script; the cores, of which rank ``i`` gets number ``i`` (modulo)."""
        self._folder, self._cores = folder, [cores[end % len(cores)] for end in (0, 1)]
        self._spaces = [f"{PREFIX}{os.getpid()}-{end}" for end in (0, 1)]
        self._devices = [f"ls{os.getpid()}{end}" for end in "ab"]

    def __enter__(self):
        _check()
        remove_stale()
        try:
            for space in self._spaces:
                _ip("netns", "add", space)
            (one, other), (first, second) = self._devices, self._spaces
            _ip("-n", first, "link", "add", one, "type", "veth", "peer", "name", other, "netns", second)
            for space, device, address in zip(self._spaces, self._devices, ADDRESSES, strict=True):
                _ip("-n", space, "addr", "add", address, "dev", device)
                for name in ("lo", device):
                    _ip("-n", space, "link", "set", name, "up")
            self.launcher = self._write_launcher()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *problem):
        for space in self._spaces:
            # The devices go with their namespaces.
            subprocess.run(["ip", "netns", "del", space], capture_output=True)

    def shape(self, rate: str) -> None:
        """Limit both directions to ``rate``, in tc's words such as ``1gbit``; ``none`` lifts the limit."""
        for space, device in zip(self._spaces, self._devices, strict=True):
            if rate == "none":
                subprocess.run(["tc", "-n", space, "qdisc", "del", "dev", device, "root"], capture_output=True)
            else:
                # A burst of a millisecond at 1 Gbit/s, ten at 100 Mbit/s: what is sent in one piece pays for its bytes.
                limit = ("tbf", "rate", rate, "burst", "128kb", "latency", "100ms")
                _run("tc", "-n", space, "qdisc", "replace", "dev", device, "root", *limit)

    def sent(self) -> int:
        """Bytes that passed the link so far, in both directions, with the headers of Ethernet, IP and TCP."""
        ends = zip(self._spaces, self._devices, strict=True)
        shown = (json.loads(_ip("-n", space, "-s", "-j", "link", "show", "dev", device)) for space, device in ends)
        return sum(end["stats64"]["tx"]["bytes"] for (end,) in shown)

    def _write_launcher(self) -> list[str]:
        """mpirun in the first namespace, and the script that takes the place of ssh: it "reaches" hosts h0 and h1."""
        agent = self._folder / "enter-namespace"
        lines = ["#!/bin/sh", 'host=$1; shift; all="$*"', "case $host in"]
        for end, (space, core) in enumerate(zip(self._spaces, self._cores, strict=True)):
            # Both daemons believe to be on the same host, and would share their session files.
            place = self._folder / f"h{end}"
            place.mkdir(exist_ok=True)
            inside = f"env TMPDIR={shlex.quote(str(place))} {' '.join(BOUND)} {core}"
            lines.append(f'h{end}) exec ip netns exec {space} {inside} sh -c "$all" ;;')
        agent.write_text("\n".join([*lines, "esac", ""]))
        agent.chmod(0o755)
        words = [{"^openib": "tcp,self"}.get(word, word) for word in MPIRUN if word != "--oversubscribe"]
        return [
            *("ip", "netns", "exec", self._spaces[0], *words, "-H", "h0:1,h1:1", "-np", "2"),
            *("--mca", "plm_rsh_agent", str(agent)),
            *("--mca", "btl_tcp_if_include", SUBNET, "--mca", "oob_tcp_if_include", SUBNET),
            *("--mca", "rtc_hwloc_vmhole", "none"),  # sharing a description of the machine has crashed daemons
        ]


def remove_stale() -> None:
    """Remove the namespaces of benchmarks that were killed too hard to do it themselves."""
    for entry in json.loads(_ip("-j", "netns", "list") or "[]"):
        match = re.fullmatch(rf"{PREFIX}(\d+)-\d", entry["name"])
        if match and not Path(f"/proc/{match[1]}").exists():
            with contextlib.suppress(ConfigError):
                _ip("netns", "del", entry["name"])


def _check() -> None:
    if platform.system() != "Linux" or os.geteuid() != 0:
        raise ConfigError("exchange makes network namespaces, which needs root on Linux; run it with sudo")
    if missing := [name for name in ("ip", "tc") if not shutil.which(name)]:
        raise ConfigError(f"exchange needs {' and '.join(missing)} to make slow links; apt-get install iproute2")


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        what = f"'{' '.join(words)}' failed ({' '.join(done.stderr.split())})"
        raise ConfigError(f"{what}; exchange needs to make and shape network namespaces")
    return done.stdout
