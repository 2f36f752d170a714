"""The benchmark's slow links, and the bytes that pass them."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import environment
from test_benchmark import BENCHMARK, run_quick

from distributed.gradients import cost_model
from launch.bench import links
from launch.bench.comparisons import exchange
from launch.job.config import ConfigError

pytestmark = pytest.mark.timeout(1200)

WITH_LINKS = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"), reason="needs root and iproute2"
)


def namespaces(pid=""):
    """Those of a benchmark, or of all: others may run on this machine."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines() if line.startswith(f"{links.PREFIX}{pid}")}


def left_behind():
    return {name for name in namespaces() if not psutil.pid_exists(int(name.split("-")[1]))}


def members_of(spaces):
    """The processes that live in these namespaces (mpirun, orted, the ranks), and their command lines."""
    members = {}
    for space in spaces:
        listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True).stdout
        for pid in map(int, listed.split()):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                members[process] = " ".join(process.cmdline())
    return members


@WITH_LINKS
@pytest.mark.faults
def test_quick_exchange_counts_the_bytes_of_the_link(tmp_path):
    result = run_quick("exchange", tmp_path)
    assert not left_behind()
    rows = {row["contestant"]: row for row in result["rows"]}
    assert {"horovod by hand", "horovod by hand, per tensor", "without exchange"} < set(rows)
    for name, row in rows.items():
        if name != "without exchange":
            # Headers and control messages on top, never less.
            talk = row["mb_control"] / row["mb_model"]
            assert 0.999 < row["mb_per_step"] / row["mb_model"] < 1.03 + talk, result["rows"]
    assert rows["horovod by hand"]["mb_model"] == pytest.approx(4 * 18_075_242 / 1e6)


@WITH_LINKS
@pytest.mark.faults
@pytest.mark.parametrize(("number", "code"), ((signal.SIGTERM, 143), (signal.SIGINT, 130)))
def test_interrupted_exchange_takes_down_ranks_and_namespaces(number, code):
    words = [sys.executable, BENCHMARK, "exchange", "--quick"]
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        members = {}
        while not any("train.py" in line for line in members.values()):
            assert process.poll() is None
            time.sleep(0.5)
            members = members_of(namespaces(f"{process.pid}-"))
        process.send_signal(number)
        assert process.wait(60) == code
    finally:
        process.kill()
        process.wait()
    assert not namespaces(f"{process.pid}-")
    _, alive = psutil.wait_procs(members, 20)
    assert not alive


@WITH_LINKS
def test_namespaces_of_a_killed_benchmark_are_removed_by_the_next():
    gone = subprocess.Popen(["true"])
    gone.wait()
    stale, alive = f"{links.PREFIX}{gone.pid}-0", f"{links.PREFIX}{os.getpid()}-0"
    try:
        for name in (stale, alive):
            subprocess.run(["ip", "netns", "add", name], check=True)
        links.remove_stale()
        assert stale not in namespaces() and alive in namespaces()
    finally:
        for name in (stale, alive):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@WITH_LINKS
def test_link_shapes_both_directions(tmp_path):
    with links.Link(tmp_path, [0]) as link:
        for rate, kind in (("100mbit", "tbf"), ("none", None)):
            link.shape(rate)
            for space in link._spaces:
                shown = subprocess.run(["tc", "-n", space, "qdisc", "show"], capture_output=True, text=True).stdout
                assert ("tbf" in shown and "rate 100Mbit" in shown) == bool(kind), shown
        began = link.sent()
        send = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(bytes(1000), ('198.18.0.2', 9))"
        subprocess.run(["ip", "netns", "exec", link._spaces[0], sys.executable, "-c", send], check=True)
        end = time.monotonic() + 10  # it leaves once the other end has said where it is
        while link.sent() <= began + 1000:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_links_without_root_or_tools_are_refused_in_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="needs root on Linux; run it with sudo"):
        links.Link(tmp_path, [0]).__enter__()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="ip and tc .* apt-get install iproute2"):
        links.Link(tmp_path, [0]).__enter__()


@pytest.mark.parametrize(
    ("batch", "parameters", "dense", "times"),
    (
        (64, 18_075_242, [[256, 4096], [4096, 4096], [4096, 10]], 17),
        (32, 62_378_344, [[9216, 4096], [4096, 4096], [4096, 1000]], 14),
        (16, 138_357_544, [[25088, 4096], [4096, 4096], [4096, 1000]], 9),
    ),
)
def test_byte_model_is_the_ring_s(batch, parameters, dense, times):
    layers = dict(zip(("fc6", "fc7", "fc8"), map(tuple, dense), strict=True))
    settings = {"global_batch": 2 * batch, "replicas": 2, "item_bytes": 4, "calibration": None}
    choices = cost_model.choose(layers, exchange="auto", **settings)
    everything = exchange.all_reduce_bytes(parameters)
    assert everything == 4 * parameters
    saved = sum(choice.allreduce_bytes - choice.bytes for choice in choices.values())
    assert everything / (everything - saved) == pytest.approx(times, rel=0.06)


def test_rates_are_read():
    assert links.bits_per_second("100mbit") == 1e8 and links.bits_per_second("none") == float("inf")
