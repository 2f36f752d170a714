"""What networks cost as they train: each on one and on two ranks, and with a frozen base beside all of it."""

from launch.bench.contestants import Case, Job, Place, all_cores, least_size
from launch.bench.report import Result
from launch.bench.runner import Runner
from launch.bench.timing import Timing
from launch.job.config import ConfigError

CLASSES = 10
FROZEN, WHOLE = "base frozen", "all layers train"
HEAD = ("--head", "flatten", "--head-units", "256")  # of networks of keras.applications
# Of both, so that it makes no difference: auto may choose otherwise for each.
EXCHANGE = ("--exchange", "factors")


def networks(arguments, runner: Runner) -> Result:
    """Networks on one rank and on two, one core each: images per second, weights, bytes of a step."""
    result, cores = Result("images_per_second"), _two_cores()
    for case in _sized(arguments):
        job = Job(case, runner.folder, classes=CLASSES)
        places = {1: Place(cores=cores[:1]), 2: Place(2, cores=cores)}
        timings = {n: runner.start(job.lockstep(f"{n} of lockstep", place=place)) for n, place in places.items()}
        runner.rounds(arguments.rounds, seconds=arguments.turn_seconds)
        for ranks, timing in timings.items():
            row = timing.row() | _made_of(timing, ranks)
            result.add(case.label, f"{ranks} rank{'s' * (ranks > 1)}", "lockstep", row)
        runner.end_all()
    return result


def frozen(arguments, runner: Runner) -> Result:
    """Two ranks, a frozen base (--freeze base) beside the same network all of which trains: bytes, memory and time.

    The features of the base are computed in every step, so that what is saved is the gradient, its exchange, and the
    optimizer's part of the step and its memory.
    """
    result, place = Result("ms_per_step"), Place(2, cores=_two_cores())
    for case in _sized(arguments):
        job, head = Job(case, runner.folder, classes=CLASSES), HEAD if case.model.startswith("keras:") else ()
        flags = {FROZEN: (*EXCHANGE, "--freeze", "base", "--cache-features", "off"), WHOLE: EXCHANGE}
        timings = {name: runner.start(job.lockstep(name, *head, *more, place=place)) for name, more in flags.items()}
        runner.rounds(arguments.rounds, seconds=arguments.turn_seconds)
        result.add_beside(case.label, "2 ranks", timings)
        for row in result.rows[-2:]:
            row |= _made_of(timings[row["contestant"]], 2)
        runner.end_all()
    return result


def _two_cores() -> list[int]:
    if len(cores := all_cores()) < 2:
        raise ConfigError("two ranks take a core each, and there is one; take a machine with more")
    return cores[:2]


def _sized(arguments) -> list[Case]:
    return [case._replace(pixels=arguments.image_size or least_size(case.model)) for case in arguments.cases]


def _made_of(timing: Timing, ranks: int) -> dict:
    """Columns: weights in all, those that train, bytes of their gradients that a rank sends in a step, those of the
    optimizer's state."""
    facts = timing.facts
    summed = 2 * (ranks - 1) / ranks * 4 * facts["trained"]
    return {
        "parameters": facts["parameters"],
        "trained": facts["trained"],
        "mb_sent": (summed - facts["saved_bytes"]) / 1e6 if ranks > 1 else None,
        "mb_optimizer": facts["optimizer_bytes"] / 1e6,
    }
