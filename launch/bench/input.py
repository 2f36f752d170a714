"""Input pipelines alone, in processes of their own: images per second that somebody could train on.

Arrays: Lockstep's pipeline (a batch gathered at once) and one that shuffles and maps single images, both without
augmentation and with random crop and flip.  JPEG files: Lockstep's pipeline, which decodes only what it crops, and the
same with decode, crop, resize one after the other.
"""

import sys
from pathlib import Path

import numpy as np

from launch.bench.cases import IMAGES, real_data
from launch.bench.contestants import HERE, Contestant, all_cores
from launch.bench.measure import Arena, speedup
from launch.bench.report import Result

DRAWN = (375, 500)  # height and width of drawn JPEG files, usual in ImageNet
CLASSES = 4


def run(arguments, arena: Arena) -> Result:
    """Compare three pairs, each taking turns by itself."""
    result = Result("images_per_second")
    arrays = real_data("shapes", None, arguments.images, arena.folder)
    files = arguments.jpeg_dir or draw_files(arena.folder / "jpeg", 16 if arguments.quick else IMAGES // 4)
    size = ("--image-size", arguments.image_size)
    kinds = (
        ("arrays, no augmentation", arrays, "none", "per element", ()),
        ("arrays, flip and crop", arrays, "flip_crop", "per element", ()),
        ("JPEG files, inception crop", files, "inception", "decode, crop, resize", size),
    )
    for kind, data, augment, other, more in kinds:
        timings = {}
        for way in ("lockstep", other):
            flags = ["--way", way, "--data", data, "--augment", augment, "--batch-size", arguments.batch_size, *more]
            timings[way] = arena.enter(_feeder(way, flags, arguments.batch_size))
        arena.rounds(arguments.rounds, seconds=arguments.turn_seconds)
        ours, theirs = timings["lockstep"], timings[other]
        result.add(kind, "", "lockstep", ours.row() | speedup(ours, theirs) | {"ratio_to": other})
        result.add(kind, "", other, theirs.row())
        arena.leave()
    return result


def draw_files(folder: Path, count: int) -> Path:
    """Class folders of JPEG files with soft random pictures, which compress as photographs do."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    for index in range(count):
        coarse = random.uniform(0, 255, (12, 16, 3))
        soft = tf.image.resize(coarse, DRAWN, "bicubic") + random.normal(0, 8, (*DRAWN, 3))
        data = tf.io.encode_jpeg(tf.cast(tf.clip_by_value(soft, 0, 255), tf.uint8), quality=90)
        path = folder / f"class{index % CLASSES}" / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.numpy())
    return folder


def _feeder(way: str, flags: list, batch: int) -> Contestant:
    from launch.bench.feeder import BATCHES

    words = [str(word) for word in (sys.executable, HERE / "feeder.py", *flags)]
    return Contestant(way, [words], [all_cores()], 1, batch * BATCHES)
