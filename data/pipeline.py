"""From a source to batches, in this order.

    positions -> this worker's slice -> indices -> read -> decode -> augment -> batch -> prefetch

order.py decides which examples an element of the stream holds, decode.py and augment.py how an example looks; this
file carries one to the other. A single map makes a whole batch from an element's number, several batches at a time,
delivered in order. Unpacking batches into samples and decoding those in parallel took no less CPU time, at 32x32 or
500x375 pixels.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data import augment as views
from data import decode
from data.datasets import Source
from data.order import Order, SequentialOrder, Share

PREFETCH = 2  # finished batches that wait: one on its way to the model, one ready behind it


def training_batches(
    source: Source,
    *,
    order: Order,
    share: Share,
    start_step: int,
    augment: str,
    image_size: int,
    threads: int,
) -> tf.data.Dataset:
    """The endless training stream from step `start_step` on, as the worker that has `share` of it eats it.

    Args:
        order: of the source's examples.
        augment: a key of AUGMENTATIONS.
        image_size: side of the square images that come out, in pixels.
        threads: CPU threads for reading, decoding and augmenting; also the number of batches in the making.

    Returns:
        A dataset of (images uint8 [b, s, s, 3], labels int32 [b], sample ids int64 [b]) with b = order.replica_batch
        and s = image_size; the ids are indices into `source`. Which batches and which pixels depends on no thread.
        A file that cannot be decoded raises tf.errors.OpError when its batch is due; `diagnose` then finds it.
    """
    _check_size(source, order)

    def batch(element):
        # This worker's slice of the step, as numbers: nobody reads what others read, and a restart skips for free.
        epoch, indices = order.indices(element)
        images = AUGMENTATIONS[augment].images(source, indices, order.seed, epoch, image_size)
        return images, _labels(source, indices), indices

    first_step = share.elements(order.replicas, start_step, start_step + 1)
    elements = tf.data.Dataset.counter(first_step.start, first_step.step, dtype=tf.int64)
    return _delivered(elements, batch, threads)


def validation_batches(
    source: Source, *, order: SequentialOrder, share: Share, augment: str, image_size: int, threads: int
) -> tf.data.Dataset:
    """One pass over `source` in its own order, as the worker that has `share` of it sees it.

    Over all workers every example occurs once with weight 1. What fills the last step is example 0 with weight 0,
    so that all replicas take order.steps steps of one static shape, even those without an example.
    `augment` chooses the evaluation view: the central square, of 7/8 of the shorter side for "inception".

    Returns:
        A finite dataset of (images uint8 [b, s, s, 3], labels int32 [b], weights float32 [b]).
    """
    _check_size(source, order)

    def batch(element):
        indices, weights = order.indices(element)
        return _central_images(source, indices, augment, image_size), _labels(source, indices), weights

    elements = share.elements(order.replicas, 0, order.steps)
    return _delivered(tf.data.Dataset.range(elements.start, elements.stop, elements.step), batch, threads)


def prediction_batches(
    source: Source, *, order: SequentialOrder, share: Share, augment: str, image_size: int, threads: int
) -> tf.data.Dataset:
    """`validation_batches` of encoded pictures of which some cannot be read: these come out black, with weight 0."""
    _check_size(source, order)
    eighths = AUGMENTATIONS[augment].eighths

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
    def picture(index):
        return decode.central_decode(source.read(index[None])[0], image_size, eighths)

    def read(indices: np.ndarray, weights: np.ndarray):
        # Outside of the graph, where one picture that fails would take its whole batch along.
        images = np.zeros((len(indices), image_size, image_size, 3), np.uint8)
        for place, index in enumerate(indices):
            try:
                images[place] = picture(index)
            except (tf.errors.OpError, ValueError):
                weights[place] = 0
        return images, weights

    def batch(element):
        indices, weights = order.indices(element)
        images, weights = tf.numpy_function(read, [indices, weights], (tf.uint8, tf.float32), stateful=False)
        images = tf.ensure_shape(images, [order.replica_batch, image_size, image_size, 3])
        return images, tf.zeros_like(indices, tf.int32), tf.ensure_shape(weights, [order.replica_batch])

    elements = share.elements(order.replicas, 0, order.steps)
    return _delivered(tf.data.Dataset.range(elements.start, elements.stop, elements.step), batch, threads)


def evaluation_images(source: Source, indices, augment: str, image_size: int) -> tf.Tensor:
    """What `validation_batches` shows of some examples: int64 [b] -> uint8 [b, s, s, 3], outside of a pipeline."""
    return _central_images(source, tf.constant(indices, tf.int64), augment, image_size)


def diagnose(source: Source, indices) -> str | None:
    """The first of `indices` that cannot be read or decoded, in words: "PLACE: reason"; None if all can.

    For the moment after a pipeline died, whose error does not name the example. Reads one at a time, outside a graph.
    """
    for index in indices:
        try:
            data = source.read(tf.constant([index], tf.int64))
            if source.encoded:
                tf.io.decode_image(data[0], channels=3, expand_animations=False)
        except (tf.errors.OpError, ValueError, OSError) as error:
            return f"{source.where(int(index))}: {_reason(error)}"
    return None


def _check_size(source: Source, order: Order | SequentialOrder) -> None:
    assert order.examples == len(source), f"an order of {order.examples} examples for a source of {len(source)}"


class Augmentation(NamedTuple):
    """What is done to the examples in training, and what evaluation then sees of them.

    Attributes:
        images: (source, indices int64 [b], seed, epoch, size) -> training views, uint8 [b, size, size, 3].
        eighths: of the shorter side, the square in the middle that evaluation sees.
    """

    images: Callable
    eighths: int


def _plain(source: Source, indices: tf.Tensor, seed: int, epoch: tf.Tensor, size: int):
    return _central_images(source, indices, "none", size)


def _flip_crop(source: Source, indices: tf.Tensor, seed: int, epoch: tf.Tensor, size: int):
    # Once all have one size: a whole batch at a time costs little more than one image at a time.
    return views.flip_crop(_central_images(source, indices, "flip_crop", size), indices, seed, epoch)


def _inception(source: Source, indices: tf.Tensor, seed: int, epoch: tf.Tensor, size: int):
    if not source.encoded:
        return views.inception(source.read(indices), indices, seed, epoch, size)
    # While decoding: the crop says which part of the file is needed at all.
    return _decoded(source, indices, lambda data, i: views.inception_decode(data, i, seed, epoch, size), size)


AUGMENTATIONS = {
    "none": Augmentation(_plain, 8),
    "flip_crop": Augmentation(_flip_crop, 8),
    "inception": Augmentation(_inception, 7),
}


def _central_images(source: Source, indices: tf.Tensor, augment: str, size: int) -> tf.Tensor:
    """Evaluation views of the examples: int64 [b] -> uint8 [b, size, size, 3]."""
    if source.ready:
        return source.read(indices)
    eighths = AUGMENTATIONS[augment].eighths
    if not source.encoded:
        return decode.central(source.read(indices), size, eighths)
    return _decoded(source, indices, lambda data, _: decode.central_decode(data, size, eighths), size)


def _decoded(source: Source, indices: tf.Tensor, view: Callable, size: int) -> tf.Tensor:
    """Read the batch in one call, as offsets and opens are cheaper together; decode one by one, as sizes differ."""
    data = tf.ensure_shape(source.read(indices), indices.shape)
    image = tf.TensorSpec([size, size, 3], tf.uint8)
    return tf.map_fn(lambda pair: view(*pair), (data, indices), fn_output_signature=image, parallel_iterations=1)


def _labels(source: Source, indices: tf.Tensor) -> tf.Tensor:
    return tf.gather(source.labels_tensor, indices)


def _delivered(elements: tf.data.Dataset, batch: Callable, threads: int) -> tf.data.Dataset:
    """Batches of the elements, `threads` in the making, in order; prefetch last, so that whole batches wait."""
    options = tf.data.Options()
    # Autotuning can stall the end of an epoch: teardown waits for its sleeping thread, up to a minute.
    options.autotune.enabled = False
    options.deterministic = True
    # Input must not take more cores than this worker's share, however many the machine has.
    options.threading.private_threadpool_size = threads
    batch = tf.autograph.experimental.do_not_convert(batch)  # no Python control flow on tensors; builds faster
    return elements.map(batch, num_parallel_calls=threads, deterministic=True).prefetch(PREFETCH).with_options(options)


def _reason(error: Exception) -> str:
    """TensorFlow's message without the names of graph nodes around it."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", text).strip()
    return text.splitlines()[0].strip(" .") if text else type(error).__name__
