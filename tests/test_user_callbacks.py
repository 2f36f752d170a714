"""The user's Keras callbacks: which may take part, where, and one sentence for each that may not."""

import keras
import pytest

from launch.job.config import ConfigError
from launch.job.user.callbacks import check_callbacks, on_chief_only


def test_callbacks_that_may_take_part(tmp_path):
    log, stop = keras.callbacks.CSVLogger(tmp_path / "log.csv"), keras.callbacks.EarlyStopping()
    assert check_callbacks((log, stop)) == check_callbacks(lambda: [log, stop]) == [log, stop]
    assert check_callbacks(()) == []


def test_writers_run_on_the_chief_alone(tmp_path):
    class Mine(keras.callbacks.CSVLogger):
        pass

    own = keras.callbacks
    writers = [own.CSVLogger("x"), own.ModelCheckpoint("x.keras"), own.TensorBoard("x"), own.RemoteMonitor(), Mine("x")]
    everywhere = [own.EarlyStopping(), own.LambdaCallback(), own.TerminateOnNaN(), own.History(), own.Callback()]
    assert all(map(on_chief_only, writers)) and not any(map(on_chief_only, everywhere))


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        (
            keras.callbacks.History(),
            "callbacks gives an object of type History, not a list of Keras callbacks; write [callback, ...]",
        ),
        (
            lambda: None,
            "callbacks gives an object of type NoneType, not a list of Keras callbacks; write [callback, ...]",
        ),
        ([keras.callbacks.History], "callbacks[0] is the class History, not one of its instances; write History(...)"),
        (
            [keras.callbacks.History(), print],
            "callbacks[1] is of type builtin_function_or_method, not a Keras callback; give ",
        ),
        ([keras.callbacks.CallbackList()], "callbacks[0] is of type CallbackList, not a Keras callback; give "),
        (
            [keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)],
            "callbacks[0] is a LearningRateScheduler: it sets the rate, as --schedule FILE.py:FUNCTION does on all "
            "workers; leave it out",
        ),
        (
            [keras.callbacks.ReduceLROnPlateau()],
            "callbacks[0] is a ReduceLROnPlateau: it sets the rate, which follows --plateau-patience; leave it out",
        ),
        (
            [keras.callbacks.BackupAndRestore("x")],
            "callbacks[0] is a BackupAndRestore: it saves and restores the run, as --resume does for all workers; "
            "leave it out",
        ),
    ],
)
def test_callbacks_that_may_not(callbacks, words):
    with pytest.raises(ConfigError) as error:
        check_callbacks(callbacks)
    assert words in str(error.value) and "\n" not in str(error.value)
