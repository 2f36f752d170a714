"""From a source to batches, in this order.

    positions -> this worker's slice -> indices -> read -> decode -> augment -> batch -> prefetch

order.py decides which examples an element of the stream holds, decode.py and augment.py how an example looks; this
file carries one to the other. A single map makes a whole batch from an element's number, several batches at a time,
delivered in order. Unpacking batches into samples and decoding those in parallel took no less CPU time, at 32x32 or
500x375 pixels.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow.autograph.experimental import do_not_convert  # no Python control flow on tensors; builds faster

from data.datasets import Source
from data.order import Order, SequentialOrder, Share
from data.pictures import decode, exif
from data.pictures.decode import NOW, Decoding
from data.views import AUGMENTATIONS, evaluation_images

PREFETCH = 2  # finished batches that wait: one on its way to the model, one ready behind it
IN_THE_MAKING = 2**30  # bytes that the batches on which threads work may take, beside those that wait


def training_batches(
    source: Source,
    *,
    order: Order,
    share: Share,
    start_step: int,
    augment: str,
    image_size: int,
    threads: int,
    decoding: Decoding = NOW,
) -> tf.data.Dataset:
    """The endless training stream from step `start_step` on, as the worker that has `share` of it eats it.

    Args:
        order: of the source's examples.
        augment: a key of AUGMENTATIONS.
        image_size: side of the square images that come out, in pixels.
        threads: CPU threads for reading, decoding and augmenting; also the number of batches in the making, or of
            parts of batches where whole ones would take too much memory.
        decoding: in which way files become pixels.

    Returns:
        A dataset of (images uint8 [b, s, s, 3], labels int32 [b], sample ids int64 [b]) with b = order.replica_batch
        and s = image_size; the ids are indices into `source`. Which batches and which pixels depends on no thread.
        A file that cannot be decoded raises tf.errors.OpError when its batch is due; `data.diagnose` then finds it.
    """
    _check_size(source, order)

    def batch(element, part):
        # This worker's slice of the step, as numbers: nobody reads what others read, and a restart skips for free.
        epoch, indices = order.indices(element)
        indices = part(indices)
        if source.ready:
            images = source.view(indices, epoch)
        else:
            images = AUGMENTATIONS[augment].images(source, indices, order.seed, epoch, image_size, decoding)
        return images, _labels(source, indices), indices

    first_step = share.elements(order.replicas, start_step, start_step + 1)
    elements = tf.data.Dataset.counter(first_step.start, first_step.step, dtype=tf.int64)
    return _delivered(elements, batch, threads, order.replica_batch, image_size)


def validation_batches(
    source: Source,
    *,
    order: SequentialOrder,
    share: Share,
    augment: str,
    image_size: int,
    threads: int,
    decoding: Decoding = NOW,
    trained: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """One pass over `source` in its own order, as the worker that has `share` of it sees it.

    Over all workers every example occurs once with weight 1. What fills the last step is example 0 with weight 0,
    so that all replicas take order.steps steps of one static shape, even those without an example.
    `augment` chooses the evaluation view: the central square, of 7/8 of the shorter side for "inception".

    Args:
        trained: (seed, epoch), to see each example as training does in that epoch of a run with that seed, instead.

    Returns:
        A finite dataset of (images uint8 [b, s, s, 3], labels int32 [b], weights float32 [b]).
    """
    _check_size(source, order)

    def batch(element, part):
        indices, weights = map(part, order.indices(element))
        if trained is None:
            images = evaluation_images(source, indices, augment, image_size, decoding)
        else:
            seed, epoch = trained[0], tf.constant(trained[1], tf.int64)
            images = AUGMENTATIONS[augment].images(source, indices, seed, epoch, image_size, decoding)
        return images, _labels(source, indices), weights

    return _delivered(_one_pass(order, share), batch, threads, order.replica_batch, image_size)


def prediction_batches(
    source: Source,
    *,
    order: SequentialOrder,
    share: Share,
    augment: str,
    image_size: int,
    threads: int,
    decoding: Decoding = NOW,
) -> tf.data.Dataset:
    """`validation_batches` of encoded pictures of which some cannot be read: these come out black, with weight 0."""
    _check_size(source, order)
    eighths = AUGMENTATIONS[augment].eighths

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
    def picture(index):
        data = source.read(index[None])
        return decode.central_decode(data[0], exif.orientations(data)[0], image_size, eighths, decoding)

    def read(indices: np.ndarray, weights: np.ndarray):
        # Outside of the graph, where one picture that fails would take its whole batch along.
        images = np.zeros((len(indices), image_size, image_size, 3), np.uint8)
        for place, index in enumerate(indices):
            try:
                images[place] = picture(index)
            except (tf.errors.OpError, ValueError):
                weights[place] = 0
        return images, weights

    def batch(element, part):
        indices, weights = map(part, order.indices(element))
        images, weights = tf.numpy_function(read, [indices, weights], (tf.uint8, tf.float32), stateful=False)
        images = tf.ensure_shape(images, [*indices.shape, image_size, image_size, 3])
        return images, tf.zeros_like(indices, tf.int32), tf.ensure_shape(weights, indices.shape)

    return _delivered(_one_pass(order, share), batch, threads, order.replica_batch, image_size)


def _one_pass(order: SequentialOrder, share: Share) -> tf.data.Dataset:
    elements = share.elements(order.replicas, 0, order.steps)
    return tf.data.Dataset.range(elements.start, elements.stop, elements.step)


def _check_size(source: Source, order: Order | SequentialOrder) -> None:
    assert order.examples == len(source), f"an order of {order.examples} examples for a source of {len(source)}"


def _labels(source: Source, indices: tf.Tensor) -> tf.Tensor:
    return tf.gather(source.labels_tensor, indices)


def parts_of(batch: int, image_size: int, threads: int) -> int:
    """In how many equal parts a batch is made, so that what `threads` work on takes 1 GiB at most: a divisor of it.

    64 threads on batches of 4,096 images of 224x224 would else hold 39 GB.
    """
    most = max(1, IN_THE_MAKING // (threads * image_size * image_size * 3))
    return next(parts for parts in range(1, batch + 1) if batch % parts == 0 and batch // parts <= most)


def _delivered(
    elements: tf.data.Dataset, batch: Callable, threads: int, replica_batch: int, image_size: int
) -> tf.data.Dataset:
    """Batches of the elements, `threads` in the making, in order; prefetch last, so that whole batches wait.

    `batch(element, part)` makes that part of a batch that the function `part` cuts from the vectors of its examples.
    """
    options = tf.data.Options()
    # Autotuning can stall the end of an epoch: teardown waits for its sleeping thread, up to a minute.
    options.autotune.enabled = False
    options.deterministic = True
    # Input must not take more cores than this worker's share, however many the machine has.
    options.threading.private_threadpool_size = threads
    parts = parts_of(replica_batch, image_size, threads)
    size = replica_batch // parts

    def made(element, number):
        return batch(element, lambda vector: tf.ensure_shape(vector[number * size : (number + 1) * size], [size]))

    if parts == 1:
        batches = elements.map(
            do_not_convert(lambda element: batch(element, lambda vector: vector)),
            num_parallel_calls=threads,
            deterministic=True,
        )
    else:
        numbers = tf.range(parts, dtype=tf.int64)
        numbered = elements.flat_map(
            do_not_convert(
                lambda element: tf.data.Dataset.from_tensor_slices((tf.fill([parts], element), numbers))
            )
        )
        some = numbered.map(do_not_convert(made), num_parallel_calls=threads, deterministic=True)
        batches = some.batch(parts, drop_remainder=True).map(do_not_convert(_joined))
    return batches.prefetch(PREFETCH).with_options(options)


def _joined(*columns: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Parts of a batch, [parts, size, ...] each -> [parts x size, ...]."""
    return tuple(tf.reshape(column, [column.shape[0] * column.shape[1], *column.shape[2:]]) for column in columns)
