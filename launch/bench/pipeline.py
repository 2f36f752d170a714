"""An input pipeline as a contestant: it makes batches and throws them away.

python launch/bench/pipeline.py WAY DATA AUGMENT BATCH IMAGE_SIZE     # WAY: one of WAYS; DATA: npz, or class folders
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from launch.bench.images import open_training_set

BATCHES = 10  # a step: fetched inside the graph, since Python would take longer than the faster pipelines


def main(way: str, data: str, augment: str, batch: str, size: str) -> None:
    import tensorflow as tf

    from launch.baselines.client import BenchmarkClient

    iterator, client = iter(WAYS[way](data, augment, int(batch), int(size))), BenchmarkClient()

    @tf.function
    def step():
        for _ in tf.range(BATCHES):
            next(iterator)

    while True:
        client.begin_step()
        step()


def lockstep(data: str, augment: str, batch: int, size: int):
    """The product's training stream, endless."""
    source = open_training_set("npz" if data.endswith(".npz") else "image_folder", data)

    from data.order import Order, Share
    from data.pipeline import training_batches

    order = Order(examples=len(source), seed=0, replica_batch=batch, replicas=1)
    settings = {"augment": augment, "image_size": size, "threads": len(os.sched_getaffinity(0))}
    return training_batches(source, order=order, share=Share(0, 1), start_step=0, **settings)


def arrays_per_element(data: str, augment: str, batch: int, size: int, *, to_float: bool = False):
    """The baselines' pipeline, again and again."""
    import numpy as np

    from launch.baselines.job import dataset

    with np.load(data) as archive:
        arrays = {"x": archive["x_train"], "y": archive["y_train"]}
    job = argparse.Namespace(**arrays, augment=augment != "none", image_size=size, repeat_batch=False, endless=False)
    return dataset(job, batch, to_float=to_float).repeat()


def files_per_element(data: str, augment: str, batch: int, size: int, *, antialias: bool):
    """Read, decode, crop, resize, flip and colour one file after the other; the last two as Lockstep does.

    TensorFlow's plain resizing ignores pixels between those it samples; the antialiased one does not, as Lockstep's.
    """
    source = open_training_set("image_folder", data)

    import tensorflow as tf

    from data.pictures import augment as views
    from launch.baselines.job import batched

    def prepare(index):
        image = tf.image.decode_jpeg(source.read(index[None])[0], channels=3)
        draw = views.uniforms(index, 0, 0, 8)
        y, x, height, width = views.random_window(draw, tf.shape(image)[0], tf.shape(image)[1])
        image = tf.image.resize(image[y : y + height, x : x + width], [size, size], antialias=antialias)
        return views.flip_and_colour(tf.cast(tf.round(image), tf.uint8), draw), source.labels_tensor[index]

    return batched(tf.data.Dataset.range(len(source)).shuffle(10_000).repeat(), prepare, batch)


WAYS = {
    "lockstep": lockstep,
    "per element": arrays_per_element,
    "per element to float": partial(arrays_per_element, to_float=True),
    "decode, crop, resize": partial(files_per_element, antialias=False),
    "decode, crop, antialiased resize": partial(files_per_element, antialias=True),
}

if __name__ == "__main__":
    main(*sys.argv[1:])
