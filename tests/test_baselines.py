"""What Lockstep is compared with: each baseline runs by hand, and in turns, as Lockstep itself does."""

import os

import numpy as np
import pytest
from conftest import ROOT, run_command

from launch.bench.contestants import Case, Job
from launch.bench.images import random_images
from launch.bench.runner import Runner

BASELINES = ROOT / "launch" / "baselines"
MPIRUN = ("mpirun", "--oversubscribe", *(("--allow-run-as-root",) if os.geteuid() == 0 else ()), "-np", "2")


@pytest.mark.faults
@pytest.mark.parametrize(
    "script",
    (
        "keras_fit --augment",
        "keras_fit --steps-per-execution 4",
        "keras_fit --augment --mirrored --cpu-devices 2",
        "horovod_manual --alone",
        "horovod_manual --augment",
        "horovod_manual --augment --grouped",
    ),
)
def test_baselines_run_by_hand(script, tmp_path):
    data = random_images(64, 32, 10, tmp_path)
    name, *flags = script.split()
    launcher = MPIRUN if name == "horovod_manual" and "--alone" not in flags else ()
    words = ["--data", data, "--batch-size", 8, "--epochs", 2, *flags]
    done = run_command(*launcher, "python", BASELINES / f"{name}.py", *words)
    assert done.returncode == 0, done.stderr
    if name == "horovod_manual":
        assert done.stdout.count("epoch 2: loss of the last batch") == 1


def test_calls_of_several_steps_are_timed_as_what_they_are(tmp_path):
    """Lockstep and fit take four steps a call; asked for six, both take eight and say so."""
    job = Job(Case("tiny", 8), tmp_path)
    with Runner(lambda text: None) as runner:
        ours = runner.start(job.lockstep("lockstep", "--steps-per-call", "4"))
        fit = runner.start(job.keras_fit("fit", "--steps-per-execution", "4"))
        runner.rounds(2, steps=6)
        updates = ours.ask("update", 3)[0]["update"]
    assert [[sample.steps for sample in running.samples] for running in (ours, fit)] == [[8, 8], [8, 8]]
    assert ours.facts["parameters"] == 6266 and ours.facts["updated_share"] == 1
    assert ours.noted("between_calls") > 0 and len(updates) == 3 and min(updates) > 0


def test_data_without_end_is_a_few_images_over_and_over(tmp_path):
    import tensorflow as tf

    from launch.bench.plugins import EXAMPLES, Endless

    path = random_images(24, 16, 7, tmp_path)
    source = Endless(path)
    with np.load(path) as archive:
        pixels, labels = archive["x_train"], archive["y_train"]
    assert len(source.classes) == 7 and source.image_size == (16, 16) and EXAMPLES - 24 < len(source) <= EXAMPLES
    indices = np.array([0, 23, 24, 1000, len(source) - 1])
    np.testing.assert_array_equal(source.read(tf.constant(indices)), pixels[indices % 24])
    np.testing.assert_array_equal(source.labels[indices], labels[indices % 24])
