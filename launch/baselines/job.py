"""What the baselines share: the job's flags, the model, and the input pipeline of a usual tf.data tutorial."""

import argparse
import os
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from launch.baselines import tiny
from models import build_model

PAD = 4  # pixels around a 32x32 image before it is cropped (He et al. 2015, section 4.2)
LONG_EPOCH = 1_000_000  # steps of an epoch where the data has no end


def read_job(description: str, *more: tuple) -> argparse.Namespace:
    """Read the flags; ``more`` are (flag, settings) of flags that only one script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="npz file with x_train uint8 [n, h, w, 3] and y_train [n]")
    parser.add_argument("--model", default="alexnet_cifar", help="as for train.py, or tiny")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64, help="examples per device and step")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--augment", action="store_true", help="random crop and flip")
    parser.add_argument("--endless", action="store_true", help="an epoch is a million steps")
    parser.add_argument("--repeat-batch", action="store_true", help="the same on the first batch, without input work")
    for flag, settings in more:
        parser.add_argument(flag, **settings)
    job = parser.parse_args()
    with np.load(job.data) as archive:
        job.x, job.y = archive["x_train"], archive["y_train"].astype(np.int32)
    keras.config.set_dtype_policy("float32" if job.precision == "float32" else f"mixed_{job.precision}")
    keras.utils.set_random_seed(0)
    return job


def build(job: argparse.Namespace) -> keras.Model:
    """The network: uint8 pixels in, float32 logits out; the same layers, with Keras' own dropout."""
    classes = int(job.y.max()) + 1
    if job.model == "tiny":
        return tiny.network(classes, job.image_size)
    return build_model(job.model, classes=classes, image_size=job.image_size, seed=0)


def dataset(
    job: argparse.Namespace, batch: int, *, rank: int = 0, size: int = 1, to_float: bool = False
) -> tf.data.Dataset:
    """One epoch of (images uint8 [batch, s, s, 3], labels int32 [batch]): shuffle, map each image, batch, prefetch.

    ``to_float`` gives float32 in [0, 1], as most tutorials do; the models here take uint8 and scale by themselves.
    """

    def prepare(image, label):
        if job.augment:
            height, width, channels = image.shape
            padded = tf.pad(image, [[PAD, PAD], [PAD, PAD], [0, 0]])
            image = tf.image.random_crop(padded, [height, width, channels])
            image = tf.image.random_flip_left_right(image)
        if image.shape[0] != job.image_size:
            image = tf.cast(tf.image.resize(image, [job.image_size, job.image_size]), tf.uint8)
        return (tf.cast(image, tf.float32) / 255.0 if to_float else image), label

    if job.repeat_batch:
        first = np.arange(batch) % len(job.x)
        return tf.data.Dataset.from_tensors((job.x[first], job.y[first])).repeat(LONG_EPOCH)
    examples = tf.data.Dataset.from_tensor_slices((job.x, job.y)).shard(size, rank).shuffle(10_000)
    return batched(examples.repeat() if job.endless else examples, prepare, batch).take(LONG_EPOCH)


def batched(examples: tf.data.Dataset, prepare: Callable, batch: int) -> tf.data.Dataset:
    """Map single examples, several at a time, and put them in batches; two of these wait."""
    # Most scripts leave parallelism to AUTOTUNE. Its thread sleeps ever longer, up to a minute, and the end of an epoch
    # waits for it: the comparison would be with that sleep.
    options = tf.data.Options()
    options.autotune.enabled = False
    examples = examples.map(prepare, num_parallel_calls=len(os.sched_getaffinity(0)))
    return examples.batch(batch, drop_remainder=True).prefetch(2).with_options(options)
