"""Agreement is checked, not assumed: planted faults end all ranks together, with one message that names the place."""

import csv
import socket
import sys

import numpy as np
import pytest
from conftest import ROOT, run_command, run_jobs, summary
from safetensors.numpy import load_file

TRAIN = ROOT / "launch" / "train.py"
TINY = "--dataset npz --global-batch-size 12 --epochs 2 --learning-rate 0.02 --warmup-epochs 0 --seed 1"


PLANTS = {
    "nan": [["nan", 2, 7]],
    "nan about to be saved": [["nan", 2, 7]],
    "nan about to be left": [["nan", 2, 7], ["SIGUSR1@step", 1, 7]],  # both become known with the same step
    "nan before validation": [["nan", 2, 15]],
    "miscount": [["example", 1, 0]],
    "weight": [["weight", 1, 4]],
    "slot": [["slot", 2, 16]],
    "versions": [["versions", 0, 0]],
    "model": [["model", 0, 0]],
    "two kinds of cards": [["card", 2, 3]],
    "two cards": [["card", 1, 2]],
    "unseen": [["weight", 1, 4]],
    "broken off": [["nan", 2, 7]],
    "overflow": [["overflow", 1, 5]],
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory, tiny_data):
    """Runs on three ranks in which a fault is planted; returns (folder, exit codes, all that was printed)."""
    folder = tmp_path_factory.mktemp("planted")
    line = [*TINY.split(), "--data-dir", tiny_data]
    lines = {
        "nan": line,
        "nan about to be saved": [*line, "--checkpoint-every-steps", 8],
        "nan about to be left": line,
        "nan before validation": line,
        "miscount": line,
        "weight": [*line, "--check-replicas", 1],
        "slot": line,
        "versions": line,
        "model": line,
        "two kinds of cards": line,
        "two cards": line,
        "unseen": [*line, "--check-replicas", 0],
        "not split": [*line, "--exchange", "split", "--optimizer", "lamb"],
        "whole": [*line, "--deterministic"],
        "broken off": [*line, "--deterministic"],
        "broken off again": [*line, "--deterministic", "--run-dir", folder / "broken off"],
    }
    lines["overflow"] = [*line, "--precision", "float16", "--clip-norm", 1, "--check-replicas", 1]
    codes = run_jobs(folder, lines, "horovodrun", "-np", "3", plants=PLANTS)
    return folder, codes, (folder / "output.txt").read_text()


NAN_STEPS = {"nan": 7, "nan about to be saved": 7, "nan about to be left": 7, "nan before validation": 15}


@pytest.mark.parametrize(("name", "step"), NAN_STEPS.items())
def test_nan_of_one_rank_stops_all_before_the_update(planted, name, step):
    folder, codes, output = planted
    assert codes[name] == 1
    # Each says it once.
    times = sum(["nan", 2, step] in faults for faults in PLANTS.values())
    assert output.count(f"the loss is not finite at step {step} (first seen on rank 2)") == times
    facts = summary(folder / name)
    assert (facts["stopped_by"], facts["steps"]) == ("nan", step)
    (saved,) = (folder / name / "checkpoints").glob("step-*")
    assert saved.name == f"step-{step:08d}"
    weights = load_file(saved / "weights.safetensors")
    assert all(np.isfinite(weight).all() for weight in weights.values())


def test_an_epoch_that_nan_broke_off_keeps_its_metrics(planted):
    """The run goes on, and the epoch counts what it had seen until then: each example once."""
    folder, codes, _ = planted
    assert (codes["broken off"], codes["broken off again"]) == (1, 0)
    for field in ("final", "best", "weights_sha256"):
        assert summary(folder / "broken off")[field] == summary(folder / "whole")[field]
    epochs = [rows(folder / name) for name in ("broken off", "whole")]
    assert epochs[0] == epochs[1] and len(epochs[0]) == 2


def rows(run_dir):
    """metrics.csv without the columns of times."""
    with open(run_dir / "metrics.csv", newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in ("images_per_second", "seconds")}
            for row in csv.DictReader(file)
        ]


def test_a_split_that_cannot_be_had_says_why(planted):
    _, codes, output = planted
    assert codes["not split"] == 0
    said = "warning: --exchange split cannot be had: --optimizer lamb needs the whole of a layer for its step"
    assert output.count(said) == 1


def test_a_changed_weight_is_found_and_named(planted):
    _, codes, output = planted
    assert codes["weight"] == 1
    assert output.count("at step 4 fc7/bias of replica 1 differs from the others'") == 1


def test_the_optimizers_state_is_compared_at_each_epochs_end(planted):
    _, codes, output = planted
    assert codes["slot"] == 1
    (said,) = [line for line in output.splitlines() if "at step 16 " in line and "differs from the others'" in line]
    assert "momentum of replica 2 differs" in said


@pytest.mark.parametrize(("name", "field"), (("versions", "numpy"), ("model", "model")))
def test_what_the_ranks_were_started_with_is_compared(planted, name, field):
    _, codes, output = planted
    assert codes[name] == 2
    values = ", ".join(f"rank {rank}: that of rank {rank}" for rank in range(3))
    assert output.count(f"the ranks were started with different {field} ({values})") == 1


def test_ranks_on_two_kinds_of_cards_are_named(planted):
    _, codes, output = planted
    said = "different device (ranks 0, 2: card 0 (compute capability 9.0), rank 1: card 1 (compute capability 9.0))"
    assert codes["two kinds of cards"] == 2 and output.count(said) == 1, output


def test_two_ranks_on_one_card_are_named(planted):
    _, codes, output = planted
    assert codes["two cards"] == 2
    assert output.count("have 2 GPUs between them (ranks 0, 2: card 0 at 0000:00:00.0), but each") == 1, output


def test_a_changed_copy_of_a_mirrored_weight_is_found(tmp_path, tiny_data):
    line = [*TINY.split(), "--data-dir", tiny_data, "--cpu-devices", 3]
    assert run_jobs(tmp_path, {"copy": line}, plants={"copy": [["copy", 0, 16]]}) == {"copy": 1}
    assert "at step 16 fc7/bias of replica 2 differs from the others'" in (tmp_path / "errors.txt").read_text()


def test_a_validation_that_overlooks_an_example_ends_the_run(planted):
    _, codes, output = planted
    assert codes["miscount"] == 1
    assert output.count("validation saw 102 examples of 103 (rank 0: 36, rank 1: 34, rank 2: 32)") == 1, output


def test_the_comparison_can_be_switched_off(planted):
    assert planted[1]["unseen"] == 0


def test_overflow_on_one_rank_skips_the_step_everywhere_and_halves_the_scale(planted):
    folder, codes, _ = planted
    assert codes["overflow"] == 0
    steps = summary(folder / "overflow")["steps"]
    saved = load_file(folder / "overflow" / "checkpoints" / "last" / "optimizer.safetensors")
    (scale,) = (array for name, array in saved.items() if name.endswith("loss_scale"))
    (iterations,) = (array for name, array in saved.items() if name.endswith("iteration"))
    # The fault depends on the number of steps taken: it comes back, and is skipped, until the scale has fallen enough.
    assert scale < 2.0**15 and iterations < steps


LAUNCHERS = {
    "mpi": (("mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2"), "OMPI_COMM_WORLD_RANK"),
    "gloo": (("horovodrun", "--gloo", "-np", "2"), "HOROVOD_RANK"),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_another_seed_on_one_rank(tmp_path, launcher):
    words, rank = LAUNCHERS[launcher]
    script = f"{sys.executable} {TRAIN} --steps-per-epoch 1 --epochs 1 --run-dir {tmp_path}/run --seed ${rank}"
    done = run_command(*words, "sh", "-c", script)
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert output.count("different seed (rank 0: 0, rank 1: 1)") == 1, output
    assert not (tmp_path / "run").exists()


def test_another_file_in_one_ranks_folder(tmp_path):
    """Both ranks name the same folder, as two machines would, but in that of one of them a file is longer."""
    import tensorflow as tf

    jpeg = tf.io.encode_jpeg(np.zeros((16, 16, 3), np.uint8)).numpy()
    for rank in (0, 1):
        for label in ("cat", "dog"):
            folder = tmp_path / str(rank) / "photos" / label
            folder.mkdir(parents=True)
            for index in range(8):
                (folder / f"{index}.jpg").write_bytes(jpeg + bytes(rank and index == 5 and label == "dog"))
    flags = "--dataset image_folder --data-dir photos --image-size 32 --batch-size 2 --validation-split 0"
    script = f"cd {tmp_path}/$OMPI_COMM_WORLD_RANK && {sys.executable} {TRAIN} {flags}"
    done = run_command(*LAUNCHERS["mpi"][0], "sh", "-c", script)
    assert done.returncode == 2, done.stdout + done.stderr
    host, size = socket.gethostname(), len(jpeg)
    said = f"rank 1: {host} has photos/dog/5.jpg with {size + 1:,} bytes, {host}, the host of rank 0, with {size:,}:"
    assert done.stderr.count(said) == 1, done.stderr
