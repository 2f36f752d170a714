"""An input pipeline as a contestant: it makes batches and throws them away.

python launch/bench/pipeline.py --way WAY --data PLACE --augment HOW --batch-size N --image-size N
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

BATCHES = 10  # a step: fetched inside the graph, since Python would take longer than the faster pipelines
# Of files: one operation after the other, with the resizing that ignores pixels between those it samples, and with one
# that does not, as Lockstep's.
OF_FILES = {"decode, crop, resize": False, "decode, crop, antialiased resize": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=("lockstep", "per element", "per element to float", *OF_FILES), required=True)
    parser.add_argument("--data", required=True, help="npz file, or class folders of images")
    parser.add_argument("--augment", choices=("none", "flip_crop", "inception"), required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--image-size", type=int, required=True)
    job = parser.parse_args()
    make = files_per_element if job.way in OF_FILES else lockstep if job.way == "lockstep" else arrays_per_element
    batches = make(job)

    import tensorflow as tf

    from launch.baselines.client import BenchmarkClient

    iterator, client = iter(batches), BenchmarkClient()

    @tf.function
    def step():
        for _ in tf.range(BATCHES):
            next(iterator)

    while True:
        client.begin_step()
        step()


def lockstep(job):
    """The product's training stream, endless."""
    from data import load
    from data.order import Order, Share
    from data.pipeline import training_batches

    kind = "npz" if job.data.endswith(".npz") else "image_folder"
    source = load(kind, job.data, seed=0, validation_split=0).train
    order = Order(examples=len(source), seed=0, replica_batch=job.batch_size, replicas=1)
    settings = {"augment": job.augment, "image_size": job.image_size, "threads": len(os.sched_getaffinity(0))}
    return training_batches(source, order=order, share=Share(0, 1), start_step=0, **settings)


def arrays_per_element(job):
    """The baselines' pipeline, again and again."""
    import numpy as np

    from launch.baselines.job import dataset

    with np.load(job.data) as archive:
        job.x, job.y = archive["x_train"], archive["y_train"]
    job.augment, job.repeat_batch, job.endless = job.augment != "none", False, False
    return dataset(job, job.batch_size, to_float=job.way.endswith("to float")).repeat()


def files_per_element(job):
    """Read, decode, crop, resize, flip and colour one file after the other; the last two as Lockstep does."""
    import tensorflow as tf

    from data import augment, load
    from launch.baselines.job import batched

    source = load("image_folder", job.data, seed=0, validation_split=0).train

    def prepare(index):
        image = tf.image.decode_jpeg(source.read(index[None])[0], channels=3)
        draw = augment.uniforms(index, 0, 0, 8)
        y, x, height, width = augment.random_window(draw, tf.shape(image)[0], tf.shape(image)[1])
        size = [job.image_size, job.image_size]
        image = tf.image.resize(image[y : y + height, x : x + width], size, antialias=OF_FILES[job.way])
        return augment._flip_and_colour(tf.cast(tf.round(image), tf.uint8), draw), source.labels_tensor[index]

    return batched(tf.data.Dataset.range(len(source)).shuffle(10_000).repeat(), prepare, job.batch_size)


if __name__ == "__main__":
    main()
