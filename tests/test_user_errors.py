"""What is said when the user's code raises, or gives what it must not."""

import sys

import pytest
import user_files
from user_files import one_line

from data.datasets import DataError
from launch.job.config import ConfigError
from launch.job.user.call import UserCodeError
from launch.job.user.callbacks import check_callbacks
from launch.job.user.code import load_function
from launch.job.user.data import open_data
from launch.job.user.network import build_network
from models import ModelError

nothing_stays_imported = pytest.fixture(user_files.nothing_stays_imported, autouse=True)
write = pytest.fixture(user_files.write)


def test_an_exception_is_told_with_its_line_and_without_our_frames(write):
    write("def fail(x):\n    raise KeyError(x)", file="other_helper.py")
    reference = write(
        """
        import other_helper, keras
        def build(classes, image_size):
            return other_helper.fail("a\\nb")
        def deep(classes, image_size):
            x = 1
            return keras.layers.Dense(-1)
        def leave(classes, image_size): raise SystemExit(3)
        def stop(classes, image_size): raise KeyboardInterrupt
        def silent(classes, image_size): raise ValueError
        def long(classes, image_size): raise ValueError("x" * 1000)
        """
    )

    def call(name):
        with pytest.raises(UserCodeError) as error:
            load_function(reference.replace(":build", f":{name}"), "--model")(10, 32)
        assert error.value.sentence == one_line(error)
        return error.value

    error = call("build")
    assert error.sentence == f"{reference} raised KeyError: 'a\\nb' (other_helper.py, line 2)"
    lines = error.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[1].endswith('net.py", line 4, in build')
    assert lines[-1] == "KeyError: 'a\\nb'" and "launch/job/" not in error.traceback
    assert isinstance(error.__cause__, KeyError)
    error = call("deep")  # raised by Keras, but it is the user's line that helps
    assert error.sentence.endswith("(net.py, line 7)") and "ValueError: " in error.sentence
    assert call("leave").sentence.endswith(":leave raised SystemExit: 3 (net.py, line 8)")
    assert call("silent").sentence.endswith(":silent raised ValueError (net.py, line 10)")
    assert len(call("long").sentence) < 500
    with pytest.raises(KeyboardInterrupt):
        load_function(reference.replace(":build", ":stop"), "--model")(10, 32)


@pytest.mark.parametrize("text", ["\nraise OSError('no disk')", "\nimport failing_helper"])
def test_an_exception_of_the_import(write, text):
    write("\n\nraise OSError('no disk')", file="failing_helper.py")
    where = "failing_helper.py, line 3" if "helper" in text else "net.py, line 2"
    for _ in range(2):  # what has failed is tried again
        with pytest.raises(UserCodeError) as error:
            load_function(write(text), "--model")
        assert one_line(error) == f"importing net.py raised OSError: no disk ({where})"
    assert 'net.py", line 2, in <module>' in error.value.traceback.splitlines()[1]
    assert "importlib" not in error.value.traceback and "lockstep_user_net" not in sys.modules


def test_networks_by_reference(write):
    reference = write("import keras\ndef build(classes, size):\n    return keras.layers.Dense(classes)\n")
    with pytest.raises(ModelError) as error:
        build_network(load_function(reference, "--model"), 3, 8)
    assert one_line(error) == f"{reference} gave an object of type Dense, but must give a keras.Model."
    reference = write("import keras\ndef build(classes, size):\n    return keras.layers.Dense(-classes)\n")
    with pytest.raises(UserCodeError, match=r"raised ValueError: .* \(net.py, line 3\)$"):
        build_network(load_function(reference, "--model"), 3, 8)


def test_data_by_reference(write):
    reference = write("import numpy as np\ndef load(): return np.zeros(3), None\ndef fail(): 1 / 0", "load")
    with pytest.raises(DataError) as error:
        open_data(load_function(reference, "--dataset"))
    assert one_line(error).startswith(f"{reference} gives (pixels, labels): expected")
    with pytest.raises(UserCodeError, match=r":fail raised ZeroDivisionError: .* \(net.py, line 3\)$"):
        open_data(load_function(reference.replace(":load", ":fail"), "--dataset"))


def test_callbacks_by_reference(write):
    reference = write("import keras\ndef none(): return [keras.callbacks.History(), 3]", "none")
    with pytest.raises(ConfigError) as error:
        check_callbacks(load_function(reference, "--callbacks"))
    assert (
        one_line(error)
        == f"{reference}[1] is of type int, not a Keras callback; give instances of keras.callbacks.Callback"
    )
