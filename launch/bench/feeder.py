"""An input pipeline as a contestant: it makes batches and throws them away.

python launch/bench/feeder.py --way WAY --data PLACE --augment HOW --batch-size N
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

BATCHES = 10  # a step: fetched inside the graph, since Python would take longer than the faster pipelines


# Of files: one operation after the other, with the resizing that ignores pixels between those it samples, and with one
# that does not, as Lockstep's.
BY_HAND = {"decode, crop, resize": False, "decode, crop, antialiased resize": True}
WAYS = ("lockstep", "per element", "per element to float", *BY_HAND)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--data", required=True, help="npz file, or class folders of images")
    parser.add_argument("--augment", choices=("none", "flip_crop", "inception"), required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--image-size", type=int, default=32)
    job = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    dataset = per_element(job) if job.way.startswith("per element") else lockstep(job)

    import tensorflow as tf

    from launch.baselines.turns import Turns

    iterator, turns = iter(dataset), Turns()

    @tf.function
    def step():
        for _ in tf.range(BATCHES):
            next(iterator)

    while True:
        turns.begin_step()
        step()


def lockstep(job):
    """The product's training stream, endless."""
    from data import decode, load
    from data.order import Order, Share
    from data.pipeline import training_batches

    if job.way in BY_HAND:
        decode.decode_window = decode_then_crop
        decode.resize = partial(resize, antialias=BY_HAND[job.way])
    kind = "npz" if job.data.endswith(".npz") else "image_folder"
    source = load(kind, job.data, seed=0, validation_split=0).train
    return training_batches(
        source,
        order=Order(examples=len(source), seed=0, replica_batch=job.batch_size, replicas=1),
        share=Share(0, 1),
        start_step=0,
        augment=job.augment,
        image_size=job.image_size,
        threads=len(os.sched_getaffinity(0)),
    )


def decode_then_crop(data, choose):
    """``data.decode.decode_window`` without the fused operation: the whole picture is decoded."""
    import tensorflow as tf

    image = tf.image.decode_jpeg(data, channels=3)
    y, x, height, width = choose(tf.shape(image)[0], tf.shape(image)[1])
    return image[y : y + height, x : x + width]


def resize(image, size, antialias):
    """``data.decode.resize`` by one operation for all cases."""
    import tensorflow as tf

    return tf.cast(tf.round(tf.image.resize(image, [size, size], antialias=antialias)), tf.uint8)


def per_element(job):
    """The baselines' pipeline, again and again."""
    import numpy as np

    from launch.baselines.job import dataset

    with np.load(job.data) as archive:
        job.x, job.y = archive["x_train"], archive["y_train"]
    job.augment, job.repeat_batch = job.augment != "none", False
    return dataset(job, job.batch_size, to_float=job.way.endswith("to float")).repeat()


if __name__ == "__main__":
    main()
