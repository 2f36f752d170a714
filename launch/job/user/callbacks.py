"""The user's Keras callbacks: which may take part in a run, and on which workers."""

from collections.abc import Callable, Sequence

import keras

from launch.job.config import ConfigError
from launch.job.user.call import UserCodeError, call, defined_in

# What Keras has for something that is Lockstep's in a run -> what to use instead.
_REPLACED = {
    keras.callbacks.LearningRateScheduler: "sets the rate, as --schedule FILE.py:FUNCTION does on all workers",
    keras.callbacks.ReduceLROnPlateau: "sets the rate, which follows --plateau-patience",
    keras.callbacks.BackupAndRestore: "saves and restores the run, as --resume does for all workers",
}
_WRITERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.OrbaxCheckpoint,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


def check_callbacks(callbacks: list | tuple | Callable) -> list[keras.callbacks.Callback]:
    """The user's callbacks as a list.

    Args:
        callbacks: instances of ``keras.callbacks.Callback``, or a function that returns them.

    Raises:
        ConfigError: something else, or a callback that does what only Lockstep can do for all workers.
        UserCodeError: the function, of the command line, raised an exception.
    """
    what = getattr(callbacks, "reference", "callbacks")
    if callable(callbacks) and not isinstance(callbacks, type):
        callbacks = callbacks()
    if not isinstance(callbacks, list | tuple):
        kind = type(callbacks).__name__
        raise ConfigError(
            f"{what} gives an object of type {kind}, not a list of Keras callbacks; write [callback, ...]"
        )
    for index, callback in enumerate(callbacks):
        if isinstance(callback, type):
            name = callback.__name__
            raise ConfigError(f"{what}[{index}] is the class {name}, not one of its instances; write {name}(...)")
        name = type(callback).__name__
        if not isinstance(callback, keras.callbacks.Callback) or isinstance(callback, keras.callbacks.CallbackList):
            raise ConfigError(
                f"{what}[{index}] is of type {name}, not a Keras callback; give instances of keras.callbacks.Callback"
            )
        for replaced, why in _REPLACED.items():
            if isinstance(callback, replaced):
                raise ConfigError(f"{what}[{index}] is a {name}: it {why}; leave it out")
    return list(callbacks)


class CallbackError(Exception):
    """A callback raised an exception, which is the cause of this one; maybe on this worker alone.

    ``sentence`` and ``traceback`` are as in ``UserCodeError``.
    """

    def __init__(self, sentence: str, traceback: str):
        super().__init__(sentence)
        self.sentence, self.traceback = sentence, traceback


def call_all(callbacks: Sequence[keras.callbacks.Callback], event: str, *arguments) -> None:
    """Call a method of each.

    Raises:
        CallbackError: whatever one of them raised.
    """
    for callback in callbacks:
        where = f"{type(callback).__name__}.{event}"
        try:
            call(where, defined_in(callback), getattr(callback, event), *arguments)
        except UserCodeError as error:
            raise CallbackError(error.sentence, error.traceback) from error.__cause__


def on_chief_only(callback: keras.callbacks.Callback) -> bool:
    """Whether it is one of Keras' own that write files, print or send messages: once is enough.  All others run on
    every worker, and see the same values there."""
    return isinstance(callback, _WRITERS)
