"""Where the time of an epoch goes, and on whom one waits: the parts of a step, and who is named for what."""

import csv
import re
import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import BIN, run_jobs, summary
from jobs import tiny

from distributed.step_times import PARTS as PARTS_OF_STEPS
from distributed.strategies import SingleDevice
from distributed.world import World
from launch.job.config import TrainConfig
from launch.job.logs.stragglers import find_stragglers
from launch.job.preparation import build
from launch.job.preparation.batch_plan import create_batch_plan
from launch.job.timing.epoch_clock import PARTS, RankTimes

EVEN = {"input": 0.1, "compute": 5.0, "exchange": 0.4, "update": 0.3, "validation": 1.0, "saving": 0.0, "other": 0.2}


def ranks(*changes: dict, hosts=("node1",)):
    """Times of as many ranks, each with these changes."""
    return [RankTimes(hosts[number % len(hosts)], EVEN | change) for number, change in enumerate(changes)]


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        (
            ranks({"exchange": 1.3}, {"compute": 5.9}, {"exchange": 1.3}, hosts=("a", "b")),
            "rank 1 on b computes 18 % longer; the others waited 0.9 s of 7.9",
        ),
        (
            ranks({"exchange": 2.4}, {"input": 2.1}),
            "rank 1 on node1 waits 2.0 s longer for input; the other waited 2.0 s of 9.0",
        ),
        (
            ranks({"saving": 3.0}, {}, {}, {}),
            "rank 0 on node1 takes 3.0 s to save; the others waited 3.0 s of 10.0",
        ),
        (
            ranks({}, {}, {}, {"validation": 2.0}),
            "rank 3 on node1 validates 100 % longer; the others waited 1.0 s of 8.0",
        ),
        (
            ranks({}, {}, {}, {}, {}, {"compute": 7.5}, {"compute": 7.0}, {"compute": 7.5}),
            "ranks 5-7 on node1 compute 50 % longer; the others waited 2.5 s of 9.5",
        ),
        (
            ranks({"other": 1.2}, {}),
            "rank 0 on node1 takes 1.0 s longer between steps (callbacks, logs); the other waited 1.0 s of 8.0",
        ),
    ],
)
def test_the_slow_are_named_with_the_cause(times, sentence):
    assert find_stragglers(times).sentence == sentence


def test_nobody_is_named_for_little():
    assert find_stragglers(ranks({}, {}, {})) is None
    assert find_stragglers(ranks({})) is None
    # Under a tenth of what the others take.
    assert find_stragglers(ranks({}, {"compute": 5.6})) is None
    # Who waits longest is the fastest.
    assert find_stragglers(ranks({"exchange": 9.0}, {}, {})) is None
    # A tenth of next to nothing.
    short = {part: seconds / 100 for part, seconds in EVEN.items()}
    assert find_stragglers([RankTimes("a", short), RankTimes("a", short | {"saving": 0.1})]) is None


@pytest.mark.parametrize("per_call", (1, 4))
def test_the_parts_of_a_step_are_what_they_say(monkeypatch, per_call):
    """A reader, a loss and an update that take their time, each another one."""
    naps = {"input": 0.03, "compute": 0.05, "exchange": 0.0, "update": 0.02}

    def asleep(part):
        return tf.numpy_function(lambda: time.sleep(naps[part]) or 0, [], tf.int64)

    def late(part, *tensors):
        with tf.control_dependencies(tensors):
            nap = asleep(part)
        with tf.control_dependencies([nap]):
            return tuple(map(tf.identity, tensors))

    losses = build.example_losses
    monkeypatch.setattr(build, "example_losses", lambda *given: lambda *of: losses(*given)(*late("compute", *of)))
    config = TrainConfig(global_batch_size=4, accumulate_steps=2)
    plan = create_batch_plan(config, examples=400, replicas=1)
    model, _ = build.build(config, plan, SingleDevice(World()), classes=3, image_size=16, own_model=tiny(0.5, 0))
    naps["compute"] /= plan.accumulate
    apply = model.optimizer.apply

    def late_update(*given):
        with tf.control_dependencies([asleep("update")]):
            apply(*given)

    monkeypatch.setattr(model.optimizer, "apply", late_update)
    images, labels = np.zeros((4, 16, 16, 3), np.uint8), np.arange(4, dtype=np.int32) % 3
    batches = tf.data.Dataset.from_tensors((images, labels, np.arange(4))).repeat()
    options = tf.data.Options()
    options.autotune.enabled = False  # which would read ahead
    batches = iter(batches.map(lambda *batch: late("input", *batch)).with_options(options))
    model.steps(batches, np.full(per_call, 0.01))
    before, began = np.array(model.times.seconds), time.perf_counter()
    for _ in range(8 // per_call):
        model.steps(batches, np.full(per_call, 0.01))
    whole, seconds = time.perf_counter() - began, np.array(model.times.seconds) - before
    parts = dict(zip(PARTS_OF_STEPS, seconds.tolist(), strict=True))
    naps["compute"] *= plan.accumulate
    assert all(parts[part] >= 8 * nap for part, nap in naps.items()), parts
    # What is not slept is not slept twice: together they are no more than what the host sees, with all of the naps.
    assert sum(parts.values()) <= whole
    assert all(parts[part] - 8 * nap <= whole - 8 * sum(naps.values()) for part, nap in naps.items()), (parts, whole)


@pytest.fixture(scope="module")
def runs(tiny_data, tmp_path_factory):
    """Runs on two ranks that sleep alike in every step, and of which one sleeps besides."""
    folder, data = tmp_path_factory.mktemp("slow"), tiny_data.parent / "train_only.npz"
    line = ["--dataset", "npz", "--data-dir", data, "--validation-split", "0", "--epochs", "2"]
    line += ["--global-batch-size", "32", "--exchange", "allreduce"]
    alike = ["compute", None, 0.3]
    plants = {
        "nobody": [alike],
        "compute": [alike, ["compute", 1, 0.6]],
        "input": [alike, ["input", 1, 0.6]],
        "saving": [alike, ["saving", 0, 6.0]],
        "deterministic": [["compute", 1, 0.1]],  # the last one: TensorFlow stays so
    }
    more = {"compute": ["--steps-per-call", "3"], "deterministic": ["--deterministic", "--epochs", "1"]}
    jobs = {name: [*line, *more.get(name, [])] for name in plants}
    codes = run_jobs(folder, jobs, BIN / "horovodrun", "-np", "2", plants=plants)
    assert codes == dict.fromkeys(jobs, 0)
    return folder


def table(run):
    with open(run / "times.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.faults
def test_a_slow_rank_is_named_with_its_cause(runs):
    said = {}
    for job in re.split(r"^.*job: ", (runs / "output.txt").read_text(), flags=re.M)[1:]:
        name, lines = re.fullmatch(r"(\w+)(.*)", job, flags=re.S).groups()
        # What a busy machine does to a rank between steps is named as well, and none of these tests' business.
        lines = [line for line in re.findall(r"ranks? \d.* waited .*", lines) if "between steps" not in line]
        said.setdefault(name, []).extend(lines)
    # It cannot tell; of "nobody" a busy machine's rank may be named in truth.
    assert said["deterministic"] == []
    for name, rank, words in (
        ("compute", 1, r"computes \d+ % longer"),
        ("input", 1, r"waits \d\.\d s longer for input"),
        ("saving", 0, r"takes \d\.\d s to save"),
    ):
        assert said[name], name
        for line in said[name]:
            assert re.fullmatch(rf"rank {rank} on \S+ {words}; the other waited \d\.\d s of \d+\.\d", line), line
        slow = [found for found in summary(runs / name)["time"]["slow"] if found["cause"] != "other"]
        assert [(found["ranks"], found["cause"]) for found in slow] == [([rank], name)] * len(said[name])


@pytest.mark.faults
def test_the_launcher_is_a_part_of_the_start(runs):
    startup = summary(runs / "nobody")["startup"]
    assert 0 < startup["launcher"] < startup["seconds"] and list(startup)[1] == "launcher"


@pytest.mark.faults
def test_the_table_has_each_rank_of_each_epoch(runs):
    for name in ("nobody", "compute"):
        rows = table(runs / name)
        assert [(row["epoch"], row["rank"]) for row in rows] == [("1", "0"), ("1", "1"), ("2", "0"), ("2", "1")]
        # Six steps of the second epoch, in each of which both ranks slept.
        assert all(sum(float(row[part]) for part in PARTS) > 6 * 0.3 for row in rows[2:])
    # TensorFlow, told to be deterministic, refuses to tell the time.
    assert table(runs / "deterministic") == [] and summary(runs / "deterministic")["time"] is None
    fast, slow = table(runs / "compute")[2:]
    # Both end each step together: in all that the fast one does, most of it waiting, is as much.
    assert float(slow["compute"]) > 6 * 0.9 and sum(float(fast[part]) for part in PARTS) > 6 * 0.9
    assert float(fast["exchange"]) > float(slow["exchange"])
    assert float(table(runs / "saving")[2]["saving"]) > 6


@pytest.mark.faults
def test_each_replica_of_one_process_has_its_times(tiny_data, tmp_path):
    """With batch normalisation over both replicas, whose exchanges the passes wait for."""
    line = ["--dataset", "npz", "--data-dir", tiny_data, "--epochs", "1", "--global-batch-size", "32"]
    line += ["--strategy", "mirrored", "--cpu-devices", "2", "--batch-norm-span", "global", "--steps-per-call", "2"]
    codes = run_jobs(tmp_path, {"run": line}, plants={"run": [["compute", None, 0.2]]})
    assert codes == {"run": 0}
    rows = table(tmp_path / "run")
    # A busy machine's replica is named in truth.
    named = find_stragglers([RankTimes(row["host"], {part: float(row[part]) for part in PARTS}) for row in rows])
    said = [(found["ranks"], found["cause"]) for found in summary(tmp_path / "run")["time"]["slow"]]
    assert said == ([] if named is None else [(named.ranks, named.cause)])
    assert [(row["epoch"], row["rank"]) for row in rows] == [("1", "0"), ("1", "1")]
    for row in rows:
        # Of six steps the first call's two are left out.
        assert float(row["compute"]) >= 4 * 0.2 and float(row["validation"]) > 0 and float(row["exchange"]) > 0
