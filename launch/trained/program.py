"""What programs that use a trained run have in common: their workers, and how they end."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distributed.health import heartbeat
from distributed.world import World, WorldError
from launch.job import environment
from launch.trained.interrupts import Interrupts, answer_signals

if TYPE_CHECKING:
    from distributed.strategies import Strategy
    from launch.job.logs.console import Console

HANG_TIMEOUT = 600.0  # seconds without a sign of life after which a rank counts as hung


class OutputError(ValueError):
    """Something that cannot be made or written; its message is one sentence."""


def check_writable(folder: Path, flag: str) -> None:
    """Refuse a folder in which nothing can be written, or, while it is missing, cannot be made; worth asking before the
    work is done.

    Args:
        flag: that names another.

    Raises:
        OutputError: the first folder of its path that is there, and why.
    """
    folder = folder.absolute()
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not os.path.isdir(there):
        raise OutputError(f"{there} is no folder; give another place with {flag}")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        raise OutputError(f"{there} cannot be written to; give another place with {flag}")


class FailedAlone(Exception):
    """What the user can mend, found by one of several workers, while the others wait for it; one sentence."""


def mendable() -> tuple[type[Exception], ...]:
    """The errors that the user can mend: they end a program with one sentence and exit code 2."""
    from launch.evaluation.classification import EvaluationError
    from launch.job.preparation.stages import USER_ERRORS

    return (*USER_ERRORS, OutputError, EvaluationError)


@dataclass(frozen=True)
class Workers:
    """The workers of a program, as one of them sees them."""

    strategy: "Strategy"
    console: "Console"
    threads: int

    @property
    def side_by_side(self) -> int:
        """Batches that one replica computes at the same time, on a core each."""
        local = self.strategy.replicas if self.strategy.name == "mirrored" else 1
        return max(1, self.threads // local)

    def together(self, function: Callable):
        """Call ``function`` on every worker; where it fails on any of them, fail on all with one sentence."""
        from distributed.control import together

        heartbeat.beat()
        return together(self.strategy.control, mendable(), function)

    def opening(self, what: str, done: int, total: int) -> None:
        """A `data.datasets.Progress`: a bar on the console, and a sign of life."""
        heartbeat.beat()
        self.console.opening(what, done, total)

    def on_chief(self, function: Callable):
        """Call ``function`` on the chief, which may write files; all workers get its answer, a JSON value, or its
        failure.

        Raises:
            OutputError: a file could not be written.
        """

        def call():
            try:
                return function() if self.strategy.is_chief else None
            except OSError as error:
                place, reason = error.filename or "a file", error.strerror or error
                raise OutputError(f"{place} cannot be written ({reason}); nothing was left; mend that") from error

        with heartbeat.waiting():
            answer = self.together(call)
        return self.strategy.control.agree(answer)


def run(
    options: argparse.Namespace,
    work: Callable[[Workers], int],
    *,
    exact: bool = True,
    refused: Callable[[str], int] | None = None,
) -> int:
    """Call ``work`` on every worker, and answer for what goes wrong.

    Args:
        options: with ``strategy``, ``cpu`` and ``cpu_devices``.
        work: gives the exit code; the chief's counts.  What the user can mend it raises as ``FailedAlone``, or on all
            workers together as one of ``mendable``.
        exact: compute each operation on one core: several would share it in ways on which the last bits depend.
        refused: told why the workers cannot begin, in one sentence; gives the exit code.  By default it is printed.
    """
    try:
        world = World.from_environment(os.environ, options.strategy)
    except WorldError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    # Nothing is written yet; and an exception within an import would show where, or be lost.
    answer_signals(lambda number, frame: heartbeat.die(130))
    cores = environment.prepare(world, verbose=False, cpu=environment.on_cpu(options))
    launcher = environment.launcher()
    heartbeat.start(world, HANG_TIMEOUT, launcher and launcher.pid)
    code, lost_errors = 1, sys.unraisablehook
    try:
        code = _work_on(world, options, cores.threads, work, exact, refused)
        return code
    finally:
        sys.unraisablehook = lost_errors
        heartbeat.end(code)


def _work_on(
    world: World,
    options: argparse.Namespace,
    threads: int,
    work: Callable[[Workers], int],
    exact: bool,
    refused: Callable[[str], int] | None,
) -> int:
    with environment.loading(quiet=True):
        import tensorflow as tf

        from distributed.hardware.devices import check_devices, create_strategy
        from launch.job.failure import fail
        from launch.job.logs.console import Console

        errors = mendable()
    tf.get_logger().setLevel("ERROR")
    try:
        strategy = create_strategy(
            options.strategy,
            world,
            cpu_devices=options.cpu_devices,
            threads=threads,
            exact=exact,
            cpu=environment.on_cpu(options),
        )
    except WorldError as error:
        if refused is not None:
            return refused(str(error))
        Console(True).error(str(error))
        return 2
    heartbeat.wait_in_teardown()
    console, interrupts = Console(strategy.is_chief, launched=world.launcher != "none"), Interrupts()
    try:
        interrupts.listen()
        try:
            check_devices(strategy, cpu=environment.on_cpu(options))
        except WorldError as error:
            if refused is None:
                raise
            return strategy.control.leave(refused(str(error)))
        return strategy.control.leave(work(Workers(strategy, console, threads)))
    except (KeyboardInterrupt, Exception) as error:
        console.stop()
        if interrupts.asked or isinstance(error, KeyboardInterrupt):
            console.error("interrupted; what has been written so far is whole")
            if world.size > 1:
                strategy.control.abort(130)
            heartbeat.die(130)  # libraries would complain at length of what was cut short
        if isinstance(error, errors):
            console.error(str(error))
            return strategy.control.leave(2)
        known = isinstance(error, FailedAlone)
        return fail(error, world, strategy.control.abort, lambda error: str(error) if known else None)
    finally:
        interrupts.asked = True  # no call: it could be hit itself
        interrupts.end()
