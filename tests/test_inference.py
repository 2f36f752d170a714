"""A network's answers depend on the picture and the size of the batch alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.formats.arrays.source import training_source
from data.order import SequentialOrder, Share
from data.pipeline import validation_batches
from distributed.inference import Inference
from distributed.strategies import SingleDevice
from distributed.world import World

N, SIZE = 23, 8


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(7, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.9),
            layers.Dense(33, activation="relu"),
            layers.Dense(3),
        ]
    )


@pytest.fixture(scope="module")
def source():
    pixels = np.random.default_rng(2).integers(0, 256, (N, SIZE, SIZE, 3), np.uint8)
    return training_source("made", pixels, np.arange(N) % 3, place="made", classes=list("abc"), gap="")


def answers(network, source, batch, side_by_side):
    order = SequentialOrder(examples=len(source), replica_batch=batch * side_by_side, replicas=1)
    how = {"augment": "none", "image_size": SIZE, "threads": 2}
    batches = iter(validation_batches(source, order=order, share=Share(0, 1), **how))
    inference = Inference(network, SingleDevice(World()), batch=batch, side_by_side=side_by_side)
    rows, marks = zip(*[inference.answer(batches) for _ in range(order.steps)], strict=True)
    with pytest.raises(tf.errors.OutOfRangeError):
        inference.answer(batches)
    return np.concatenate(rows), np.concatenate(marks)


@pytest.mark.parametrize("side_by_side", [2, 3, 8])
def test_the_same_bits_however_many_batches_lie_side_by_side(network, source, side_by_side):
    (one, one_marks), (many, marks) = (answers(network, source, 4, count) for count in (1, side_by_side))
    assert one.dtype == np.float32 and one.shape[1] == 3
    assert (one[:N] == many[:N]).all()
    assert one_marks.sum() == marks.sum() == N and (marks[:N] == 1).all()


def test_a_pictures_answer_is_its_own(network, source):
    """In order, as the network alone gives it, dropout aside."""
    found, _ = answers(network, source, 4, 2)
    expected = network.predict(source.pixels, verbose=0)
    np.testing.assert_allclose(found[:N], expected, rtol=1e-5, atol=1e-6)
    assert len(np.unique(found[:N], axis=0)) == N
