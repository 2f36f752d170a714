"""Data as the workers eat it: the order that the plan counts, each example validated once, the unreadable one named."""

import sys

import pytest
import small_images
import tensorflow as tf
from conftest import ROOT, run_command
from small_images import N, joined

from data import Splits
from data.files.source import FileSource
from data.pictures.decode import NOW
from launch.job.config import TrainConfig
from launch.job.preparation.batch_plan import create_batch_plan
from launch.job.preparation.inputs import Inputs

arrays = pytest.fixture(small_images.arrays, scope="module")
files = pytest.fixture(small_images.files, scope="module")


class Worker:
    """What the inputs need of a strategy, for a worker that reads a given share."""

    def __init__(self, replicas, share):
        self.replicas, self.share = replicas, share

    def distribute(self, make_dataset):
        return make_dataset(*self.share)


def inputs(worker, train, validation, **settings):
    config = TrainConfig(augment="none", seed=5, **settings)
    plan = create_batch_plan(config, examples=len(train), replicas=worker.replicas)
    return Inputs(config, plan, worker, Splits(train, validation), image_size=16, threads=2, decoding=NOW)


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_every_pass_of_the_inputs_validates_every_example_once(arrays, replicas):
    """Batches are those of micro-batches: 31 examples in steps of 4 per replica."""
    settings = {"global_batch_size": 12, "accumulate_steps": 3} if replicas == 1 else {"batch_size": 4}
    workers = [Worker(replicas, (0, 1)), *(Worker(replicas, (r, replicas)) for r in range(replicas))]
    mirrored, *ranks = [inputs(worker, arrays, arrays, **settings) for worker in workers]
    for made in (mirrored, *ranks):
        assert (made.validation_examples, made.validation_steps) == (N, {1: 8, 2: 4, 3: 3}[replicas])
    for _ in range(2):  # each a pass from the first example to the last
        shares = [[[x.numpy() for x in batch] for batch in made.validation_batches()] for made in ranks]
        images, labels, weights = joined([share[step] for step in range(ranks[0].validation_steps) for share in shares])
        assert (images[weights == 1] == arrays.pixels).all() and (labels[weights == 1] == arrays.labels).all()
        together = joined([[x.numpy() for x in batch] for batch in mirrored.validation_batches()])
        assert all((a == b).all() for a, b in zip((images, labels, weights), together, strict=True))


def test_inputs_without_validation(arrays):
    made = inputs(Worker(1, (0, 1)), arrays, None, batch_size=4)
    assert (made.validation_batches(), made.validation_steps, made.validation_examples) == (None, 0, 0)


@pytest.mark.parametrize(
    "settings", [{"batch_size": 6}, {"batch_size": 2, "accumulate_steps": 3, "steps_per_epoch": 1}]
)
def test_inputs_train_on_the_order_that_the_plan_counts(arrays, settings):
    """The plan's steps per epoch are the order's; a worker begins at the step that it is told."""
    made = inputs(Worker(2, (1, 2)), arrays, None, **settings)
    assert (made.order.global_batch, made.order.steps_per_epoch) == (made.plan.global_batch, made.plan.steps_per_epoch)
    _, _, ids = next(iter(made.training(3)))
    epoch, indices = made.order.indices(3 * 2 + 1)
    assert ids.numpy().tolist() == indices.numpy().tolist() and len(ids) == 6
    assert epoch == 3 // made.plan.steps_per_epoch and made.order.seed == 5


def test_inputs_name_the_example_that_a_worker_could_not_read(files, tmp_path):
    """Found among the batches in the making at that step, by the worker that reads it alone."""
    for path in files.paths:
        (tmp_path / path).write_bytes(tf.io.read_file(f"{files.root}/{path}").numpy())
    source = FileSource("made", files.classes, str(tmp_path), files.paths, files.labels)
    ranks = [inputs(Worker(2, (r, 2)), source, source, batch_size=1) for r in range(2)]
    _, (lost,) = ranks[0].order.indices(5 * 2 + 1)  # of rank 1 in step 5
    (tmp_path / files.paths[lost]).unlink()
    assert [made.find_culprit(step=1) is not None for made in ranks] == [False, True]
    assert ranks[1].find_culprit(step=5).startswith(str(tmp_path / files.paths[lost]))
    assert ranks[1].find_culprit(step=6) is None  # that step is over, and the example not due again
    assert ranks[1].find_culprit(step=6, steps=30) is not None  # but within a call of many steps
    assert all("replace or remove it" in made.find_culprit(None) for made in ranks)  # in the validation set


def test_a_run_says_at_once_that_it_looks_for_a_bad_example_and_on_one_rank(tmp_path):
    """The other rank only sees that the exchange has failed, and looks for nothing."""
    random = tf.random.stateless_uniform([32, 32, 3], (1, 2), maxval=256, dtype=tf.int32)
    jpeg = tf.io.encode_jpeg(tf.cast(random, tf.uint8), quality=95).numpy()
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(16):
            (tmp_path / "photos" / label / f"{index}.jpg").write_bytes(jpeg)
    bad = tmp_path / "photos" / "cat" / "3.jpg"
    bad.write_bytes(jpeg[: len(jpeg) // 2])
    flags = "--dataset image_folder --image-size 32 --batch-size 4 --validation-split 0 --augment none"
    words = [sys.executable, ROOT / "launch/train.py", *flags.split(), "--data-dir", tmp_path / "photos"]
    done = run_command("horovodrun", "-np", 2, *words, "--run-dir", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if "could not read an example" in line or "error: " in line]
    assert len(lines) == 2, done.stderr
    assert " could not read an example (" in lines[0] and "looking for it" in lines[0]
    assert f"{bad}: " in lines[1] and "replace or remove it" in lines[1]
