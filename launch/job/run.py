"""A run, from its settings to its files: ``train`` for scripts and notebooks, ``run`` for the programs.

>>> from launch.job.config import TrainConfig
>>> from launch.job.run import train
>>> result = train(TrainConfig(epochs=3), model=my_network, data=((x, y), (x_val, y_val)))

TensorFlow is loaded only within, when its environment is settled.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distributed.hardware import placement
from distributed.health import heartbeat, preemption
from distributed.health.preemption import StopRequest
from distributed.world import World
from launch.job import environment
from launch.job.config import TrainConfig
from launch.job.logs.streams import outlive_readers
from launch.job.timing.startup import Startup

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Result:
    """What a run leaves to a script that goes on.

    Attributes:
        model: the network as plain Keras, with the trained weights; equal on every worker.
        summary: the contents of ``summary.json``.
        run_dir: where the run's files are.
    """

    model: "keras.Model"
    summary: dict
    run_dir: Path


class Interrupted(SystemExit):
    """The run was asked to leave, and has saved all; uncaught, it ends the process with exit code 85 (130 after
    Ctrl-C), which says that the same script can be started again to go on."""


def train(
    config: TrainConfig | None = None,
    *,
    model: Callable | None = None,
    data: object = None,
    callbacks: Sequence = (),
) -> Result:
    """Train, in a notebook, or in a script that one process or any launcher runs.

    Args:
        config: the settings; the defaults where None.
        model: ``(classes, image_size) -> keras.Model``: plain Keras, from uint8 pixels [b, s, s, 3] to logits
            [b, classes] ([b, 1] for two classes); None builds ``config.model``.
        data: ``(train, validation or None)`` or a function without arguments that returns it; each part is a
            ``data.datasets.Source`` or ``(uint8 pixels [n, h, w, 3], integer labels [n])``, class names a third; None
            opens ``config.dataset``.
        callbacks: plain Keras callbacks; they see the whole run's metrics, on every worker, and those of Keras that
            write files run on the chief alone. The events of a batch come once per compiled call.

    Raises:
        ValueError: one sentence about what the user can mend. Where there are several processes, the chief prints it
            and all end with exit code 2 instead; so they do, with 1, after any other error.
        Interrupted: after a signal, with all saved.
        KeyboardInterrupt: in a single process, Ctrl-C before training has begun.
        RuntimeError: the run ended in another way that its message names.
    """
    config = config or TrainConfig()
    world = World.from_environment(os.environ, config.strategy)
    stop_request = preemption.listen(raises=world.size == 1)
    outlive_readers()
    gpus = os.environ.get(placement.VISIBLE)
    try:
        code, result = run(config, world, stop_request, model=model, data=data, callbacks=callbacks, raises=True)
    finally:
        preemption.unlisten()
        heartbeat.rest()
        # A run on the CPU has hidden them; whoever trains next in this process has not asked for that.
        os.environ.pop(placement.VISIBLE, None)
        if gpus is not None:
            os.environ[placement.VISIBLE] = gpus
    if code and world.size > 1:
        # What it was has been said, once for all.
        raise SystemExit(code)
    if result is None or code:
        stopped = result and result.summary["stopped_by"]
        if stopped == "preempted":
            raise Interrupted(code)
        raise RuntimeError(f"the run ended with exit code {code}: {stopped or 'see the lines above'}")
    return result


def run(
    config: TrainConfig,
    world: World,
    stop_request: StopRequest,
    *,
    model: Callable | None = None,
    data: object = None,
    callbacks: object = (),
    raises: bool = False,
    startup: Startup | None = None,
) -> tuple[int, Result | None]:
    """Train, and answer for what goes wrong.

    Args:
        stop_request: what becomes of signals.
        model, data, callbacks: as for ``train``; they take the place of what the settings name.
        raises: whether errors of a single process are raised instead of printed.
        startup: has begun with the command; None: begins now.

    Returns:
        The exit code (0 finished, 2 the user can mend it, 85 or 130 left on request with all saved, 1 anything else),
        and the result of a run that came to its end or was asked to leave.
    """
    startup = startup or Startup(time.perf_counter())
    stop_request.patience = 0.0 if world.is_chief else 1.0
    cores = environment.prepare(
        world, verbose=config.verbose, cpu=environment.on_cpu(config), deterministic=config.deterministic
    )
    launcher = environment.launcher()
    heartbeat.start(world, config.hang_timeout, launcher and launcher.pid, flag="--hang-timeout")
    code = 1
    try:
        with environment.loading(quiet=not config.verbose):
            from launch.job import training
        startup.end("imports")
        given = {"model": model, "data": data, "callbacks": callbacks}
        code, result = training.execute(
            config, world, cores, stop_request, given, raises and world.size == 1, startup
        )
        return code, result
    finally:
        heartbeat.end(code)
