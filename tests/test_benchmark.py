"""The benchmark: that it measures what it says, shows it, and leaves nothing behind.  No test looks at a speed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from conftest import ROOT, environment, run_command

from launch.bench import links
from launch.bench.cases import made_up_data
from launch.job.config import ConfigError

BENCHMARK = ROOT / "launch" / "benchmark.py"

BASELINES = ROOT / "launch" / "baselines"

MPIRUN = ("mpirun", "--oversubscribe", *(("--allow-run-as-root",) if os.geteuid() == 0 else ()))

WITH_LINKS = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"), reason="needs root and iproute2"
)

CONTESTANTS = {
    "throughput": {"lockstep", "keras fit"},
    "scaling": {"lockstep", "horovod by hand", "without exchange"},
    "input": {
        "lockstep",
        "per element",
        "per element to float",
        "decode, crop, resize",
        "decode, crop, antialiased resize",
    },
    "overhead": {"lockstep", "keras fit", "lockstep mirrored", "mirrored fit"},
    "checkpoint": {"saving", "without"},
}


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


def run_quick(command, tmp_path, *words):
    path = tmp_path / f"{command}.json"
    done = run_command(sys.executable, BENCHMARK, command, "--quick", "--json", path, *words, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / f"{command}.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads(path.read_text())
    assert result["benchmark"] == command and result["machine"]["cores"] and result["load_before"]["load_average"]
    for row in result["rows"]:
        low, high = row["images_spread"]
        assert 0 < low <= row["images_per_second"] <= high and row["rounds"] == 2
        assert row["contestant"] in done.stdout and row["case"] in done.stdout
    assert done.stdout.count("limit: ") == len(result["limits"])
    for limit in result["limits"]:
        assert sum(limit["share"].values()) == pytest.approx(1) and f": {limit['limit']}; of a step: " in done.stdout
    return result


@pytest.mark.faults
@pytest.mark.parametrize("command", CONTESTANTS)
def test_quick_comparison_shows_and_saves_all_contestants(command, tmp_path):
    if command == "scaling" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two ranks need two cores")
    # Two batches of one model: what the first case has left is none of the second's business.
    words = {"scaling": ["--ranks", 2], "checkpoint": ["--models", "alexnet_cifar:4,alexnet_cifar:8"]}.get(command, [])
    result = run_quick(command, tmp_path, *words)
    assert {row["contestant"] for row in result["rows"]} == CONTESTANTS[command]
    assert bool(result["limits"]) == (command != "input")
    if command == "throughput":
        assert all(("between_epochs_ms" in row) == (row["contestant"] == "lockstep") for row in result["rows"])
    if command == "checkpoint":
        saving = [row for row in result["rows"] if row["contestant"] == "saving"]
        assert len(saving) == 2 and all(row["blocked_seconds"] > 0 for row in saving)


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
        while not any("contestant.py" in line for line in members.values()):
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
        assert link.sent() > began + 1000


def test_links_without_root_or_tools_are_refused_in_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="needs root on Linux; run it with sudo"):
        links.Link(tmp_path, [0]).__enter__()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="ip and tc .* apt-get install iproute2"):
        links.Link(tmp_path, [0]).__enter__()


@pytest.mark.parametrize(
    ("words", "expected"),
    (
        ("", "COMMAND"),
        ("sculling", "invalid choice: 'sculling'"),
        ("overhead --models alexnet,lenet", "--models has 'lenet'"),
        ("overhead --models alexnet:0", "a batch of 1 or more"),
        ("overhead --rounds 0", "--rounds: '0' is not a whole number"),
        ("overhead --turn-seconds nan", "--turn-seconds: 'nan'"),
        ("overhead --rates 1gbit", "unrecognized arguments: --rates"),
        ("overhead --json /nowhere/x.json", "no existing folder"),
        ("overhead --json /", "is a folder or a picture's name"),
        ("overhead --json /tmp/result.png", "is a folder or a picture's name"),
        ("overhead --models alexnet:\u00b2", "a batch of 1 or more"),
        ("throughput --precisions float64", "--precisions: 'float64' is not one of"),
        ("throughput --images 10", "less than one batch"),
        ("throughput --images 21000", "has 20000 training images"),
        ("throughput --dataset image_folder --data-dir /nowhere", "/nowhere"),
        ("scaling --ranks 4096", "--ranks 4096 does not fit"),
        ("exchange --rates fast", "--rates has 'fast'"),
        ("exchange --beside nobody", "--beside: 'nobody' is not one of"),
        ("input --quick --jpeg-dir /nowhere", "/nowhere"),
    ),
)
def test_bad_input_is_one_sentence_and_exit_code_2(words, expected):
    done = run_command(sys.executable, BENCHMARK, *words.split())
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and expected in line


@pytest.mark.faults
@pytest.mark.parametrize("script", ("keras_fit", "mirrored_fit", "horovod_manual", "horovod_manual --grouped"))
def test_baselines_run_by_hand(script, tmp_path):
    data = made_up_data(10, tmp_path)
    with np.load(data) as archive:
        np.savez(data, x_train=archive["x_train"][:64], y_train=archive["y_train"][:64])
    name, *flags = script.split()
    flags += ["--cpu-devices", "2"] if name == "mirrored_fit" else []
    launcher = [*MPIRUN, "-np", "2"] if name == "horovod_manual" else []
    words = ["--data", data, "--batch-size", 8, "--epochs", 2, "--augment", *flags]
    done = run_command(*launcher, sys.executable, BASELINES / f"{name}.py", *words)
    assert done.returncode == 0, done.stderr
    if launcher:
        assert "epoch 2: loss of the last batch" in done.stdout
