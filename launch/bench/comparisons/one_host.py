"""Comparisons on one host.  Each starts its contestants, lets them work in rounds, and fills a table."""

import sys
from itertools import groupby

from launch.bench import pipeline
from launch.bench.contestants import LAUNCH, TINY, Contestant, Job, Place, all_cores
from launch.bench.images import draw_files, open_training_set, real_images
from launch.bench.report import Result
from launch.bench.runner import Runner
from launch.bench.timing import parts, parts_of_ranks
from launch.job.config import ConfigError

ALONE, BY_HAND = "without exchange", "horovod by hand"
EPOCH = 20.0  # seconds of the epoch of which a save's share is shown


def throughput(arguments, runner: Runner) -> Result:
    """One process on real images, whole epochs: Lockstep and Keras' fit with a per-element pipeline.

    Both read the same arrays, shuffle, crop and flip at random, and train with SGD and momentum.  A turn is one epoch
    with all that an epoch's end brings: on Lockstep's side also the checkpoint, which the bare fit does not write.  The
    time from an epoch's last step to the next one's first is shown without that and the logs.
    """
    result = Result("images_per_second")
    if (most := max(case.batch for case in arguments.cases)) > arguments.images:
        raise ConfigError(f"--images {arguments.images} is less than one batch of {most}; raise it")
    data, classes = real_images(arguments.dataset, arguments.data_dir, arguments.images, runner.folder)
    for (_, batch), cases in groupby(arguments.cases, key=lambda case: (case.model, case.batch)):
        pairs = {}
        for case in cases:  # of all precisions together
            job = Job(case, runner.folder, data)
            ours = runner.start(job.lockstep(f"lockstep {case.precision}", "--augment", "flip_crop"))
            theirs = runner.start(job.keras_fit(f"keras fit {case.precision}", "--augment"))
            pairs[case] = {"lockstep": ours, "keras fit": theirs}
        first, (ours, theirs) = next((case, pair.values()) for case, pair in pairs.items())
        repeated = runner.start(Job(first, runner.folder, classes=classes).lockstep("one batch"))
        runner.rounds(arguments.rounds, steps=arguments.images // batch)
        for case, pair in pairs.items():
            gap = 1000 * pair["lockstep"].noted("between_epochs", per="epochs")
            result.add_beside(case.label, "", pair, {"between_epochs_ms": gap})
            if case != first:
                ratio = pair["lockstep"].speedup(theirs)["ratio"]
                result.notes.append(f"{case.label}: lockstep is {ratio:.2f} times keras fit in {first.precision}")
        seconds = {"saving": ours.noted("saving"), "repeated": repeated.median, "update": repeated.time_update()}
        result.add_limit(first.label, "", "lockstep", parts(ours.median, **seconds))
        runner.end_all()
    return result


def scaling(arguments, runner: Runner) -> Result:
    """1 rank on 1 core, N ranks on N cores, one repeated batch per rank: Lockstep and hand-written Horovod.

    It shows how much N ranks do of N times one.  The numbers of ranks are 2, 4, 8 ... and the most that were asked for.
    ``without exchange`` are N processes of Lockstep that know nothing of each other on the same cores: what they lose
    against N times one is lost to shared memory, not to the exchange.
    """
    most, cores = arguments.ranks, all_cores()
    if most > len(cores) or most < 2:
        raise ConfigError(f"--ranks {most} does not fit: each rank takes one of {len(cores)} cores, and 2 are needed")
    numbers = sorted({most, *(2**power for power in range(1, most.bit_length()))})
    result = Result("images_per_second")
    for case in arguments.cases:
        job, timings = Job(case, runner.folder), {}
        one = runner.start(job.lockstep("lockstep 1", place=Place(cores=cores[:1])))
        for ranks in numbers:
            place = Place(ranks, cores=cores[:ranks])
            timings[ranks] = {"lockstep": runner.start(job.lockstep(f"lockstep {ranks}", place=place))}
            if "grouped" in arguments.beside:
                timings[ranks][BY_HAND] = runner.start(job.by_hand(f"horovod {ranks}", "--grouped", place=place))
            if "alone" in arguments.beside:
                timings[ranks][ALONE] = runner.start(job.alone(f"alone {ranks}", place.cores))
        runner.rounds(arguments.rounds, seconds=arguments.turn_seconds)
        result.add(case.label, "1 rank", "lockstep", one.row() | {"ranks": 1, "ratio": 1.0, "ratio_to": "one rank"})
        for ranks, those in timings.items():
            setting, ours = f"{ranks} ranks", those["lockstep"]
            for name, timing in those.items():
                times = timing.speedup(one)
                columns = {"ranks": ranks, "ratio_to": "one rank", "efficiency": times["ratio"] / ranks} | times
                if ALONE in those and name != ALONE:
                    columns["of_alone"] = those[ALONE].median / timing.median
                result.add(case.label, setting, name, timing.row() | columns)
            if BY_HAND in those:
                result.add_note(f"{case.label}, {setting}", ours, BY_HAND, those[BY_HAND])
            if ALONE in those:
                shares = parts_of_ranks(ours, those[ALONE], those[ALONE].time_update())
                result.add_limit(case.label, setting, "lockstep", shares)
        runner.end_all()
    return result


def overhead(arguments, runner: Runner) -> Result:
    """One repeated batch: Lockstep and bare fit, in one process and mirrored on devices; tiny: also by hand.

    It shows what a step of Lockstep's costs beside that of fit.  Of ``tiny``, where a step costs little but what the
    host does: beside fit with many steps a call and with one and a loop by hand, and on two ranks beside Horovod by
    hand.
    """
    result, devices = Result("images_per_second"), arguments.cpu_devices
    for case in arguments.cases:
        job = Job(case, runner.folder)
        settings = {"one process": [job.lockstep("lockstep"), job.keras_fit("keras fit")]}
        if case.model == TINY:
            many, pair = job.keras_fit("keras fit, 32 steps a call", "--steps-per-execution", "32"), Place(2)
            settings["one process"][1:] = [many, job.keras_fit("keras fit"), job.by_hand("tf.function")]
            if devices > 1:
                ours = job.lockstep("lockstep, 2 ranks", place=pair)
                settings["2 ranks"] = [ours, job.by_hand(BY_HAND, "--grouped", place=pair)]
            result.notes.append(f"{case.label}: all read 1,000 images from memory, shuffled, in an epoch without end")
        elif devices > 1:
            place = Place(devices=devices)
            ours = job.lockstep("lockstep mirrored", place=place)
            settings[f"{devices} devices"] = [ours, job.keras_fit("mirrored fit", place=place)]
        timings = {setting: {it.name: runner.start(it) for it in those} for setting, those in settings.items()}
        runner.rounds(arguments.rounds, seconds=arguments.turn_seconds)
        for setting, those in timings.items():
            result.add_beside(case.label, setting, those)
        if case.model != TINY:
            ours = timings["one process"]["lockstep"]
            result.add_limit(case.label, "", "lockstep", parts(ours.median, update=ours.time_update()))
        runner.end_all()
    return result


def checkpoint(arguments, runner: Runner) -> Result:
    """What saving costs: the same training with and without a checkpoint in each turn.

    The cost of a save is the difference between the two: the time that training waits between two calls, and what
    writing in the background takes from the steps after it.
    """
    result = Result("cost_seconds")
    for case in arguments.cases:
        job = Job(case, runner.folder)
        without = runner.start(job.lockstep("without"))
        runner.rounds(1, seconds=arguments.turn_seconds)
        every = max(2, without.samples[0].steps)
        saving = runner.start(job.lockstep("saving", "--checkpoint-every-steps", str(every)))
        runner.rounds(arguments.rounds, steps=every)
        cost = (saving.median - without.median) * every
        waits = (saving.noted("between_calls") - without.noted("between_calls")) * every
        more = {"blocked_seconds": waits, "cost_seconds": cost, "share_of_20_s": cost / EPOCH}
        result.add_beside(case.label, f"every {every} steps", {"saving": saving, "without": without}, more)
        result.add_limit(case.label, "", "without", parts(without.median, update=without.time_update()))
        runner.end_all()
    return result


def inputs(arguments, runner: Runner) -> Result:
    """Input pipelines alone: Lockstep's and a per-element one, arrays and JPEG files.

    They work in processes of their own: images per second that somebody could train on.  Arrays: Lockstep's pipeline (a
    batch gathered at once) and one that shuffles and maps single images, both without augmentation and with random crop
    and flip.  Without augmentation the latter is shown twice: with the conversion to float that tutorials do there, and
    with nothing to do for each image, so that tf.data drops the map.  JPEG files: Lockstep's pipeline, which decodes
    only what it crops, and decode, crop, resize one after the other, both with TensorFlow's plain bilinear resizing and
    with its antialiased one.
    """
    result, batch, drawn = Result("images_per_second"), *((8, 16) if arguments.quick else (128, 256))
    files = arguments.jpeg_dir or draw_files(runner.folder / "jpeg", drawn)
    if (least := min(len(open_training_set("image_folder", files)), arguments.images)) < batch:
        raise ConfigError(f"--images or --jpeg-dir give {least} images, fewer than a batch of {batch}; give more")
    arrays, _ = real_images("shapes", None, arguments.images, runner.folder)
    of_files = ("decode, crop, resize", "decode, crop, antialiased resize")
    kinds = (
        ("arrays, no augmentation", arrays, "none", 32, ("per element", "per element to float")),
        ("arrays, flip and crop", arrays, "flip_crop", 32, ("per element",)),
        ("JPEG files, inception crop", files, "inception", 224, of_files),
    )
    for kind, data, augment, size, others in kinds:
        timings = {}
        for way in ("lockstep", *others):
            command = [sys.executable, LAUNCH / "bench" / "pipeline.py", way, data, augment, batch, size]
            timings[way] = runner.start(Contestant(way, [command], [all_cores()], 1, batch * pipeline.BATCHES))
        runner.rounds(arguments.rounds, seconds=arguments.turn_seconds)
        result.add_beside(kind, "", timings)
        runner.end_all()
    # A step is no step of any training here.
    result.rows = [{name: row[name] for name in row if not name.startswith("ms_")} for row in result.rows]
    return result
