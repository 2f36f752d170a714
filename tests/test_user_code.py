"""FILE.py:FUNCTION: how it is found and loaded, and what is said when that fails."""

import hashlib
import subprocess
import sys

import pytest
import user_files
from user_files import one_line

from launch.job.config import ConfigError
from launch.job.user.code import find_file, is_reference, load_function

nothing_stays_imported = pytest.fixture(user_files.nothing_stays_imported, autouse=True)
write = pytest.fixture(user_files.write)


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
    assert load_function("~/net.py:data", "--dataset")() == load_function("$HOME/net.py:data", "--dataset")() == [1]
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
