"""The benchmark's command line: that each comparison measures what it says, shows it and saves it.  No test looks at a
speed."""

import json
import os
import sys

import pytest
from conftest import ROOT, run_command

from launch.bench import arguments
from launch.bench.comparisons.one_host import overhead
from launch.bench.contestants import parse_models

pytestmark = pytest.mark.timeout(1200)

BENCHMARK = ROOT / "launch" / "benchmark.py"
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
    "overhead --models tiny:8": {
        *("lockstep", "tf.function", "keras fit", "keras fit, 32 steps a call"),
        *("lockstep, 2 ranks", "horovod by hand"),
    },
    "checkpoint": {"saving", "without"},
    "networks": {"lockstep"},
    "frozen": {"base frozen", "all layers train"},
}


def run_quick(command, tmp_path, *words):
    path = tmp_path / f"{command}.json"
    done = run_command(sys.executable, BENCHMARK, command, "--quick", "--json", path, *words, timeout=1100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / f"{command}.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads(path.read_text())
    assert result["benchmark"] == command and result["machine"]["cores"] and result["load_before"]["load_average"]
    for row in result["rows"]:
        low, high = row["images_spread"]
        assert 0 < low <= row["images_per_second"] <= high and row["rounds"] == 2
        assert row["contestant"] in done.stdout and row["case"] in done.stdout
    assert all(note in done.stdout for note in result["notes"])
    assert done.stdout.count("limit: ") == len(result["limits"])
    for limit in result["limits"]:
        assert sum(limit["share"].values()) == pytest.approx(1) and f": {limit['limit']}; of a step: " in done.stdout
    return result


@pytest.mark.faults
@pytest.mark.parametrize("command", CONTESTANTS)
def test_quick_comparison_shows_and_saves_all_contestants(command, tmp_path):
    if command in ("scaling", "networks", "frozen") and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two ranks need two cores")
    name, *words = command.split()
    # Two batches of one model: what the first case has left is none of the second's business.
    words += {"scaling": ["--ranks", 2], "checkpoint": ["--models", "alexnet_cifar:4,alexnet_cifar:8"]}.get(name, [])
    result = run_quick(name, tmp_path, *words)
    assert {row["contestant"] for row in result["rows"]} == CONTESTANTS[command]
    assert bool(result["limits"]) == (name not in ("input", "networks", "frozen") and "tiny" not in command)
    if name == "throughput":
        assert all(("between_epochs_ms" in row) == (row["contestant"] == "lockstep") for row in result["rows"])
    if name == "frozen":
        frozen, whole = result["rows"]
        assert frozen["parameters"] == whole["parameters"] == whole["trained"] > frozen["trained"] > 0
        assert all(frozen[column] < whole[column] for column in ("mb_sent", "mb_optimizer"))
    if name == "checkpoint":
        saving = [row for row in result["rows"] if row["contestant"] == "saving"]
        assert len(saving) == 2 and all(row["blocked_seconds"] > 0 for row in saving)


@pytest.mark.faults
def test_quick_start_shows_the_phases(tmp_path):
    words = ["start", "--quick", "--rounds", 1, "--json", tmp_path / "start.json"]
    done = run_command(sys.executable, BENCHMARK, *words, timeout=1100)
    assert done.returncode == 0, done.stdout + done.stderr
    by_hand, *rows = json.loads((tmp_path / "start.json").read_text())["rows"]
    assert by_hand["contestant"] == "one step by hand" and by_hand["start_seconds"] > 0
    assert [(row["case"], row["setting"], row["contestant"]) for row in rows] == [
        ("20 files", ranks, name) for ranks in ("1 rank", "2 ranks") for name in ("lockstep", "lockstep again")
    ]
    for row in rows:
        phases = row["phases"]
        assert row["start_seconds"] == phases["seconds"] > phases["imports"] > 0 < phases["first step"]
        assert ("launcher" in phases) == (row["setting"] == "2 ranks")
        assert f"{row['case']}, {row['setting']}, {row['contestant']}: " in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    (
        ("", "COMMAND"),
        ("start --files 0", "argument --files: '0' is not a whole number"),
        ("start --models alexnet", "unrecognized arguments: --models"),
        ("sculling", "invalid choice: 'sculling'"),
        ("overhead --models alexnet,lenet", "--models has 'lenet'"),
        ("overhead --models keras:VGG16", "--models has 'keras:VGG16'"),
        ("networks --models keras:VGG16:0", "a batch of 1 or more"),
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


def test_models_are_read():
    assert [case.batch for case in parse_models("alexnet_cifar, alexnet:7,vgg11,tiny")] == [64, 7, 16, 8]
    words = "keras:VGG16,keras:ResNet50:3"
    found = [(case.model, case.batch) for case in parse_models(words, any_of_keras=True)]
    assert found == [("keras:VGG16", 16), ("keras:ResNet50", 3)]
    labels = [case.label for case in parse_models("alexnet_cifar:3,tiny", ["float32", "bfloat16"])]
    assert labels == ["alexnet_cifar b3", "alexnet_cifar b3 bfloat16", "tiny b8", "tiny b8 bfloat16"]


def test_flags_beat_what_quick_sets_and_a_precision_is_a_list_of_one():
    words = ["overhead", "--rounds", "5", "--quick", "--precision", "bfloat16"]
    settings = arguments.parse(words, "", {"overhead": overhead})
    assert (settings.rounds, settings.turn_seconds) == (5, 0.1)
    assert settings.cases == [("alexnet_cifar", 4, "bfloat16", None)]
