"""How the benchmark lets contestants take turns, and the arithmetic of what it shows."""

import itertools
import os
import sys
import time

import psutil
import pytest

from distributed.gradients import cost_model
from launch.bench import exchange, limits
from launch.bench.cases import parse_models
from launch.bench.contestants import Contestant
from launch.bench.measure import Arena, Timing, speedup
from launch.bench.players import BenchError

# A contestant without TensorFlow: notes each turn, and who else is awake then.
FAKE = """
import json, os, socket, sys
name, journal, fails = sys.argv[1:]
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ["LOCKSTEP_TURNS"])
stream = connection.makefile("rw")
def say(message):
    print(json.dumps(message), file=stream, flush=True)
say({"rank": 0, "pid": os.getpid(), "facts": name})
for line in stream:
    ((command, steps),) = json.loads(line).items()
    with open(journal, "a") as file:
        print(name, command, steps, file=file)
    if fails == "fails":
        sys.exit("ran out of luck")
    say({"seconds": 0.5 * steps if name == "slow" else 0.1 * steps})
"""


def fake(name, journal, fails="", ranks=1):
    words = [[sys.executable, "-c", FAKE, name, str(journal), fails]] * ranks
    return Contestant(name, words, [[min(os.sched_getaffinity(0))]] * ranks, ranks, batch=8 * ranks)


def test_contestants_take_turns_and_sleep_between(tmp_path):
    journal = tmp_path / "journal"
    with Arena(lambda text: None) as arena:
        slow, fast = arena.enter(fake("slow", journal)), arena.enter(fake("fast", journal, ranks=2))
        folder = arena.folder
        arena.rounds(3, seconds=1.0, meter=itertools.count(0, 10).__next__)
        pids = [pid for player in arena._players.values() for pid in player._pids]
        deadline = time.monotonic() + 20  # a signal needs a moment
        while {psutil.Process(pid).status() for pid in pids} != {"stopped"}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    lines = journal.read_text().splitlines()
    begin = ["slow steps 3", *["fast steps 3"] * 2, "slow steps 1", *["fast steps 1"] * 2]  # warm-up, pace
    assert lines == begin + ["slow steps 2", *["fast steps 10"] * 2] * 3
    assert slow.facts["facts"] == "slow" and (slow.median, fast.median) == (0.5, 0.1)
    assert slow.metered == [5.0] * 3
    # Two ranks of 8 images each in a fifth of the time.
    assert speedup(fast, slow)["ratio"] == pytest.approx(10)
    assert not folder.exists() and not any(map(psutil.pid_exists, pids))


def test_failing_contestant_is_reported_with_what_it_printed(tmp_path):
    with Arena(lambda text: None) as arena:
        with pytest.raises(BenchError, match="(?s)unlucky ended before .*ran out of luck"):
            arena.enter(fake("unlucky", tmp_path / "journal", "fails"))
        with pytest.raises(BenchError, match="(?s)absent ended before"):
            arena.enter(Contestant("absent", [["false"]], [[min(os.sched_getaffinity(0))]], 1, 8))


def test_parts_of_a_step_add_up_and_noise_is_no_negative_part():
    parts = limits.parts(1.0, update=0.1, saving=0.05, repeated=0.85, alone=0.3)
    expected = {"saving": 0.05, "input": 0.1, "exchange": 0.55, "update": 0.1, "compute": 0.2}
    assert parts["seconds"] == pytest.approx(expected) and parts["limit"] == "the network"
    parts = limits.parts(1.0, update=0.1, repeated=1.01, alone=1.02)
    assert parts["share"] == pytest.approx({"input": 0, "exchange": 0, "update": 0.1, "compute": 0.9})
    assert parts["limit"] == "compute"


def test_ranks_that_own_half_of_the_weights_are_spared_half_of_the_update():
    facts = {"updated_share": 0.5}
    ranks, alone = Timing(8, seconds=[1.0], facts=facts), Timing(8, seconds=[0.9])
    parts = limits.limit_of_ranks("a", "b", "c", ranks, alone, update=0.2)
    assert parts["seconds"] == pytest.approx({"exchange": 0.2, "update": 0.1, "compute": 0.7})


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


def test_rates_and_models_are_read():
    assert exchange.bits_per_second("100mbit") == 1e8 and exchange.bits_per_second("none") == float("inf")
    cases = parse_models("alexnet_cifar, alexnet:7,vgg11", None, "float32")
    assert [case.batch for case in cases] == [64, 7, 16]
    assert [case.batch for case in parse_models("alexnet_cifar:3,vgg11", 5, "float32")] == [3, 5]


def test_row_shows_median_and_spread():
    row = Timing(8, steps=1, seconds=[0.3, 0.1, 0.2], cores_busy=[1, 2, 3]).row()
    assert row["ms_per_step"] == 200 and row["ms_spread"] == [100, 300] and row["images_per_second"] == 40
