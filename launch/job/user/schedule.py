"""The user's own learning rates: asked for the whole run before its first step, so that what is wrong with one of them
ends nothing in mid-run."""

import inspect
import math

from distributed.health import heartbeat
from launch.job.config import ConfigError
from launch.job.user.code import UserFunction, can_take


def rates(function: UserFunction, start: float, *, epochs: int, steps_per_epoch: int) -> tuple[tuple[float, ...], int]:
    """Ask the user's function for all rates of a run.

    Args:
        function: ``(epoch)`` or ``(epoch, lr)``, as Keras' ``LearningRateScheduler`` calls it, where ``lr`` is what it
            gave for the epoch before; or ``(step)``, if its first parameter has that name.  All are counted from 0.
        start: ``lr`` of the first epoch.

    Returns:
        The rates, and how many steps each is for.

    Raises:
        ConfigError: one of them is no number of 0 or more; it is asked for each step, and needs more than that.
        UserCodeError: the function raised an exception.
    """
    by_step, with_rate = _way(function)
    found, rate = [], start
    for place in range(epochs * (steps_per_epoch if by_step else 1)):
        heartbeat.beat()
        given = function(place, rate) if with_rate else function(place)
        rate = _number(given)
        if rate is None:
            where = f"{'step' if by_step else 'epoch'} {place}"
            raise ConfigError(
                f"--schedule {function.reference} gives {given!r:.80} for {where}, but a learning rate is a number "
                "of 0 or more; mend the function"
            )
        found.append(rate)
    return tuple(found), 1 if by_step else steps_per_epoch


def _way(function: UserFunction) -> tuple[bool, bool]:
    """Whether it is asked for each step, and whether it is told the rate before."""
    try:
        signature = inspect.signature(function.function)
    except (TypeError, ValueError):  # some that are written in C have none
        return False, False
    if next(iter(signature.parameters), "") == "step":
        if not can_take(signature, ("step",)):
            raise ConfigError(
                f"--schedule {function.reference} takes {signature}, but is called with the step alone; give the "
                "others a default, or take (epoch, lr)"
            )
        return True, False
    return False, can_take(signature, ("epoch", "lr"))


def _number(given) -> float | None:
    if given is None or isinstance(given, bool | str | bytes):
        return None
    try:
        number = float(given)  # also NumPy's and TensorFlow's
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
