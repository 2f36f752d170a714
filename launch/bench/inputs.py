"""Input pipelines alone, in processes of their own: images per second that somebody could train on.

Arrays: Lockstep's pipeline (a batch gathered at once) and one that shuffles and maps single images, both without
augmentation and with random crop and flip.  Without augmentation the latter is shown twice: with the conversion to
float that tutorials do there, and with nothing to do for each image, so that tf.data drops the map.  JPEG files:
Lockstep's pipeline, which decodes only what it crops, and decode, crop, resize one after the other, both with
TensorFlow's plain bilinear resizing and with its antialiased one.
"""

import sys
from pathlib import Path

from launch.bench.jobs import HERE, Contestant, all_cores
from launch.bench.npz import draw_files, real_data
from launch.bench.pipeline import BATCHES, OF_FILES
from launch.bench.report import Result
from launch.bench.runner import Runner
from launch.job.config import ConfigError


def inputs(arguments, runner: Runner) -> Result:
    """Compare three kinds of input, one after the other."""
    result, batch = Result("images_per_second"), arguments.batch_size
    arrays, _ = real_data("shapes", None, arguments.images, runner.folder)
    files = arguments.jpeg_dir or draw_files(runner.folder / "jpeg", 16 if arguments.quick else 256)
    if (least := min(_count(files), arguments.images)) < batch:
        raise ConfigError(f"--batch-size {batch} is more than the {least} images; lower it")
    kinds = (
        ("arrays, no augmentation", arrays, "none", 32, ("per element", "per element to float")),
        ("arrays, flip and crop", arrays, "flip_crop", 32, ("per element",)),
        ("JPEG files, inception crop", files, "inception", arguments.image_size, tuple(OF_FILES)),
    )
    for kind, data, augment, size, others in kinds:
        timings = {}
        for way in ("lockstep", *others):
            words = ("--way", way, "--data", data, "--augment", augment, "--batch-size", batch, "--image-size", size)
            command = [sys.executable, HERE / "pipeline.py", *words]
            timings[way] = runner.start(Contestant(way, [command], [all_cores()], 1, batch * BATCHES))
        runner.rounds(arguments.rounds, seconds=arguments.turn_seconds)
        result.add_beside(kind, "", timings)
        runner.end_all()
    # A step is no step of any training here.
    result.rows = [{name: row[name] for name in row if not name.startswith("ms_")} for row in result.rows]
    return result


def _count(files: Path) -> int:
    from data import load
    from data.datasets import DataError

    try:
        return len(load("image_folder", str(files), seed=0, validation_split=0).train)
    except DataError as error:
        raise ConfigError(str(error)) from None
