"""FILE.py:FUNCTION: how it is found and loaded, and what is said when that fails, or when the user's code does."""

import hashlib
import subprocess
import sys
import textwrap

import pytest

from data.datasets import DataError
from launch.job.config import ConfigError
from launch.job.user import code as user_code
from launch.job.user.callbacks import check_callbacks
from launch.job.user.code import UserCodeError, find_file, is_reference, load_function
from launch.job.user.data import open_data
from launch.job.user.network import build_network
from models import ModelError


@pytest.fixture(autouse=True)
def nothing_stays_imported():
    for name in [name for name in sys.modules if name.startswith("lockstep_user_")]:
        del sys.modules[name]  # of another test file in this process
    path, modules = [*sys.path], {*sys.modules}
    yield
    sys.path[:] = path
    for name in {*sys.modules} - modules:
        if name.startswith("lockstep_user_") or "helper" in name:
            del sys.modules[name]
    user_code._loaded.clear()


@pytest.fixture
def write(tmp_path):
    """Write a file and give its reference."""

    def write(text: str, name: str = "build", file: str = "net.py") -> str:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return f"{path}:{name}"

    return write


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# References and files


@pytest.mark.parametrize("text", ["net.py:build", "~/x/net.py:build", "/a b/net.py:build", "net.py", "net.txt:build"])
def test_references(text):
    assert is_reference(text)


@pytest.mark.parametrize("text", ["vgg16", "image_folder", "keras:ResNet50", "keras:", "net:build", "", "a/b", "1.5"])
def test_plain_names(text):
    assert not is_reference(text)


def test_a_function_is_loaded_with_what_lies_beside_it(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write("VALUE = 3", file="early_helper.py")
    write("VALUE = 4", file="late_helper.py")
    write(
        """
        from early_helper import VALUE
        counts = []

        def build(classes, image_size):
            counts.append(1)
            import late_helper
            return classes, image_size, VALUE, late_helper.VALUE, len(counts)

        def data(): return counts
        """
    )
    build = load_function("net.py:build", "--model")
    assert (build.reference, build.path, build.name) == ("net.py:build", tmp_path / "net.py", "build")
    assert build.sha256 == hashlib.sha256((tmp_path / "net.py").read_bytes()).hexdigest()
    assert build(10, 32) == (10, 32, 3, 4, 1)
    # The same file by another name is the same module.
    assert load_function("~/net.py:data", "--dataset")() == [1]
    assert sys.path[0] == str(tmp_path)
    with pytest.raises(AttributeError):
        build.name = "other"


def test_files_of_one_name_and_a_file_that_changed(write):
    first, second = (
        write("def build(c, s): return 1", file="a/net.py"),
        write("def build(c, s): return 2", file="b/net.py"),
    )
    functions = [load_function(reference, "--model") for reference in (first, second)]
    assert [function(2, 2) for function in functions] == [1, 2]
    assert [f.function.__module__ for f in functions] == ["lockstep_user_net", "lockstep_user_net_2"]
    write("def build(c, s): return 3", file="a/net.py")
    assert load_function(first, "--model")(2, 2) == 3 and functions[0](2, 2) == 1


def test_anything_callable_will_do(write):
    reference = write(
        """
        from functools import partial
        class Build:
            def __init__(self, classes, image_size, extra=None): self.got = classes, image_size
        build = partial(Build, extra=1)
        biggest = max  # has no signature
        """
    )
    assert load_function(reference, "--model")(3, 8).got == (3, 8)
    assert load_function(reference.replace("build", "Build"), "--model")(3, 8).got == (3, 8)
    assert load_function(reference.replace("build", "biggest"), "--model")(3, 8) == 8


@pytest.mark.parametrize(
    ("text", "flag", "name", "words"),
    [
        ("", "--model", "build", "net.py has no function build; it has none"),
        ("def bild(): 0", "--model", "build", "no function build; did you mean bild?"),
        ("def one(): 0\ndef two(): 0", "--model", "build", "no function build; it has one, two"),
        ("def one(): 0", "--model", "", "names no function; write FILE.py:FUNCTION (net.py has one)"),
        (
            "build = [1]",
            "--dataset",
            "build",
            "build is of type list, not a function; write a function that returns it",
        ),
        (
            "def build(classes): 0",
            "--model",
            "build",
            "takes (classes), but is called as build(classes, image_size); change its parameters",
        ),
        ("def build(a, *, b): 0", "--callbacks", "build", "takes (a, b), but is called as build(); change its"),
        ("x = 1\ndef build(:\n", "--model", "build", "net.py, line 2, is no valid Python (invalid syntax); mend it"),
        ("return 3", "--model", "build", "net.py, line 1, is no valid Python ('return' outside function)"),
        ("\0", "--model", "build", "net.py"),
        (
            "\nimport no_such_pack",
            "--model",
            "build",
            "net.py, line 2, needs no_such_pack, which is not installed here",
        ),
        ("import broken_helper", "--model", "build", "broken_helper.py, line 2, is no valid Python ("),
    ],
)
def test_what_cannot_be_loaded(write, text, flag, name, words):
    write("\nx = (", file="broken_helper.py")
    reference = write(text, name)
    with pytest.raises(ConfigError) as error:
        load_function(reference, flag)
    assert words in one_line(error) and one_line(error).startswith(f"{flag} {reference}")


def test_files_that_are_not_there(write, tmp_path):
    write("", file="network.py")
    (tmp_path / "folder.py").mkdir()
    for name, words in {
        "netwrk.py:build": "(No such file or directory); did you mean network.py?",
        "other.py:build": "(No such file or directory); check the path",
        "no/net.py:build": f"; there is no folder {tmp_path / 'no'}",
        "folder.py:build": "(Is a directory); give a file that can be read",
        "net.txt:build": "names net.txt, which is no .py file; write FILE.py:FUNCTION",
    }.items():
        with pytest.raises(ConfigError) as error:
            find_file(f"{tmp_path}/{name}", "--model")
        assert words in one_line(error)


def test_a_name_that_is_taken_already(write, tmp_path):
    write("", file="models.py")
    reference = write("def build(c, s):\n    from models import mine")
    with pytest.raises(ConfigError) as error:
        load_function(reference, "--model")
    assert f"net.py imports models, of which there are two: {tmp_path / 'models.py'}, and " in one_line(error)


def test_files_named_like_our_folders_do_not_take_their_place(write, tmp_path):
    for name in ("data", "distributed", "launch", "models"):
        write("", file=f"{name}.py")
    reference = write("def build(classes, size): return 1")
    code = f"""
from launch.job.user.code import load_function
assert load_function({reference!r}, "--model")(2, 2) == 1
import data.order, distributed.world, launch.job.config, models.vgg
"""
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_finding_a_file_needs_no_tensorflow():
    code = (
        "import sys; from launch.job.user import code; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


# Exceptions in the user's code


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
    assert lines[-1] == "KeyError: 'a\\nb'" and "user/code.py" not in error.traceback
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


# What the functions give


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
