"""Input pipelines alone, in processes of their own: images per second that somebody could train on.

Arrays: Lockstep's pipeline (a batch gathered at once) and one that shuffles and maps single images, both without
augmentation and with random crop and flip.  Without augmentation the latter is shown twice: with the conversion to
float that tutorials do there, and with nothing to do for each image, so that tf.data drops the map.  JPEG files:
Lockstep's pipeline, which decodes only what it crops, and the same with decode, crop, resize one after the other, both
with TensorFlow's plain bilinear resizing and with its antialiased one.
"""

import sys
from pathlib import Path

import numpy as np

from launch.bench.cases import real_data
from launch.bench.contestants import HERE, Contestant, all_cores
from launch.bench.feeder import BATCHES, BY_HAND
from launch.bench.measure import Arena, Timing, speedup
from launch.bench.report import Result
from launch.job.config import ConfigError

DRAWN = (375, 500)  # height and width of drawn JPEG files, usual in ImageNet
DRAWINGS, CLASSES = 256, 4


def run(arguments, arena: Arena) -> Result:
    """Compare three kinds of input, one after the other."""
    result = Result("images_per_second")
    arrays = real_data("shapes", None, arguments.images, arena.folder)
    files = arguments.jpeg_dir or draw_files(arena.folder / "jpeg", 16 if arguments.quick else DRAWINGS)
    _check(arguments, files)
    size = ("--image-size", arguments.image_size)
    kinds = (
        ("arrays, no augmentation", arrays, "none", ("per element", "per element to float"), ()),
        ("arrays, flip and crop", arrays, "flip_crop", ("per element",), ()),
        ("JPEG files, inception crop", files, "inception", tuple(BY_HAND), size),
    )
    for kind, data, augment, others, more in kinds:
        timings = {}
        for way in ("lockstep", *others):
            flags = ["--way", way, "--data", data, "--augment", augment, "--batch-size", arguments.batch_size, *more]
            timings[way] = arena.enter(_feeder(way, flags, arguments.batch_size))
        arena.rounds(arguments.rounds, seconds=arguments.turn_seconds)
        ours = timings["lockstep"]
        result.add(kind, "", "lockstep", _row(ours) | speedup(ours, timings[others[0]]) | {"ratio_to": others[0]})
        for other in others:
            result.add(kind, "", other, _row(timings[other]))
        for other in others[1:]:
            result.notes.append(f"{kind}: lockstep is {speedup(ours, timings[other])['ratio']:.2f} times {other}")
        arena.leave()
    return result


def _check(arguments, files: Path) -> None:
    from data import load
    from data.datasets import DataError

    try:
        count = len(load("image_folder", str(files), seed=0, validation_split=0).train)
    except DataError as error:
        raise ConfigError(str(error)) from None
    if (least := min(count, arguments.images)) < arguments.batch_size:
        raise ConfigError(f"--batch-size {arguments.batch_size} is more than the {least} images; lower it")


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


def _row(timing: Timing) -> dict:
    """Without the times of a step, which is no step of any training here."""
    return {name: value for name, value in timing.row().items() if not name.startswith("ms_")}


def _feeder(way: str, flags: list, batch: int) -> Contestant:
    words = [str(word) for word in (sys.executable, HERE / "feeder.py", *flags)]
    return Contestant(way, [words], [all_cores()], 1, batch * BATCHES)
