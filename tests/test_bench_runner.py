"""How the benchmark lets contestants take turns, what it makes of their times, and what it gives to the product."""

import contextlib
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from launch.bench.contestants import Contestant
from launch.bench.runner import BenchmarkError, Runner
from launch.bench.timing import Sample, Timing, parts, parts_of_ranks

# A contestant without TensorFlow: notes each turn.  It takes so many steps a call, so long each.
FAKE = """
import os, sys
from multiprocessing.connection import Client
name, journal, seconds, call, fails = sys.argv[1:]
connection = Client(os.environ["LOCKSTEP_BENCHMARK"])
connection.send({"rank": 0, "pid": os.getpid(), "name": name})
while True:
    ((command, steps),) = connection.recv().items()
    with open(journal, "a") as file:
        print(name, command, steps, file=file)
    if fails:
        sys.exit("ran out of luck")
    steps = -(-steps // int(call)) * int(call)
    connection.send({"steps": steps, "seconds": float(seconds) * steps, "saving": 3.0 * steps})
"""
CORE = min(os.sched_getaffinity(0))


def fake(name, journal, seconds=0.5, call=1, fails="", ranks=1):
    words = [[sys.executable, "-c", FAKE, name, str(journal), str(seconds), str(call), fails]] * ranks
    return Contestant(name, words, [[CORE]] * ranks, ranks, batch=8 * ranks)


def of(*seconds, batch=8, **columns):
    return Timing(batch, [Sample(each, **columns) for each in seconds])


def wait_until_stopped(ranks):
    deadline = time.monotonic() + 20  # a signal needs a moment
    while {rank.status() for rank in ranks} != {"stopped"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_contestants_take_turns_and_are_stopped_between(tmp_path):
    journal = tmp_path / "journal"
    with Runner(lambda text: None) as runner:
        slow = runner.start(fake("slow", journal))
        fast = runner.start(fake("fast", journal, seconds=0.1, ranks=2))
        folder = runner.folder
        runner.rounds(3, seconds=1.0, meter=itertools.count(0, 10).__next__)
        ranks = [rank for running in runner.running for rank in running._ranks]
        wait_until_stopped(ranks)
    lines = journal.read_text().splitlines()
    assert lines[:3] == ["slow steps 3", *["fast steps 3"] * 2]  # warm-up
    # A single step shows how long one takes, and a few more where one is too short to tell.
    assert lines[3:-9] == ["slow steps 1", *["fast steps 1"] * 2, *["fast steps 2"] * 2]
    assert lines[-9:] == ["slow steps 2", *["fast steps 10"] * 2] * 3
    assert slow.facts["name"] == "slow" and (slow.median, fast.median) == (0.5, pytest.approx(0.1))
    assert [sample.metered for sample in slow.samples] == [5.0] * 3
    assert fast.noted("saving") == 3.0
    # Two ranks of 8 images each in a fifth of the time.
    assert fast.speedup(slow)["ratio"] == pytest.approx(10)
    assert not folder.exists() and not any(map(psutil.Process.is_running, ranks))


def test_turns_of_several_steps_a_call_count_the_steps_that_were_taken(tmp_path):
    with Runner(lambda text: None) as runner:
        calls = runner.start(fake("calls", tmp_path / "journal", seconds=0.01, call=32))
        runner.rounds(2, seconds=1.0)
    assert [sample.steps for sample in calls.samples] == [128, 128] and calls.median == pytest.approx(0.01)
    assert calls.row()["steps_per_turn"] == 128


def test_failing_contestant_is_reported_with_what_it_printed(tmp_path):
    with Runner(lambda text: None) as runner:
        with pytest.raises(BenchmarkError, match="(?s)unlucky ended before .*ran out of luck"):
            runner.start(fake("unlucky", tmp_path / "journal", fails="fails"))
        with pytest.raises(BenchmarkError, match="(?s)absent ended before"):
            runner.start(Contestant("absent", [["false"]], [[CORE]], 1, 8))


def test_row_shows_median_and_spread():
    row = of(0.3, 0.1, 0.2).row()
    assert row["ms_per_step"] == 200 and row["ms_spread"] == [100, 300] and row["images_per_second"] == 40


def test_parts_of_a_step_add_up_and_noise_is_no_negative_part():
    cut = parts(1.0, update=0.1, saving=0.05, repeated=0.85, alone=0.3)
    expected = {"saving": 0.05, "input": 0.1, "exchange": 0.55, "update": 0.1, "compute": 0.2}
    assert cut["seconds"] == pytest.approx(expected) and cut["limit"] == "the network"
    cut = parts(1.0, update=0.1, repeated=1.01, alone=1.02)
    assert cut["share"] == pytest.approx({"input": 0, "exchange": 0, "update": 0.1, "compute": 0.9})
    assert cut["limit"] == "compute"


def test_ranks_that_own_half_of_the_weights_are_spared_half_of_the_update():
    ranks, alone = of(1.0), of(0.9)
    ranks.facts = {"updated_share": 0.5}
    cut = parts_of_ranks(ranks, alone, update=0.2)
    assert cut["seconds"] == pytest.approx({"exchange": 0.2, "update": 0.1, "compute": 0.7})


def test_contestants_do_not_outlive_a_benchmark_that_is_killed(tmp_path):
    script = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
    script += "from test_bench_runner import *\n"
    script += "with Runner(lambda text: None) as runner:\n"
    script += "    running = runner.start(fake('fake', Path(sys.argv[2])))\n"
    script += "    print(running._ranks[0].pid, flush=True)\n"
    script += "    time.sleep(60)\n"
    words = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "journal")]
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # what it cannot tidy up
    benchmark = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    rank = psutil.Process(int(benchmark.stdout.readline()))
    wait_until_stopped([rank])
    benchmark.kill()
    benchmark.wait()
    try:
        rank.wait(20)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.kill()
