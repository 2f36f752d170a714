"""Who may reach a run: what its processes listen on; and what it leaves, for whom to read, and of whose secrets."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, environment

HOROVODRUN = (sys.executable, str(ROOT / "launch" / "install" / "horovodrun.py"))
NETWORK = """import keras


def build(classes, image_size):
    layers = keras.layers
    return keras.Sequential([keras.Input((image_size, image_size, 3)), layers.Flatten(), layers.Dense(classes)])
"""
LOOPBACK = ("127.0.0.1", "::1")
SECRET = {"AWS_SECRET_ACCESS_KEY": "not-to-be-seen-4711", "WANDB_API_KEY": "nor-this-0815", "TOKEN": "nor-that-1234"}


def started(*words, **how) -> subprocess.Popen:
    return subprocess.Popen(
        [str(word) for word in words], env=environment() | SECRET, cwd="/", stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, **how,
    )  # fmt: skip


def listeners(process: subprocess.Popen) -> tuple[set[tuple[str, str]], str]:
    """(program, address) of every socket that the process and those below it have listened on, and what was printed."""
    found, root = set(), psutil.Process(process.pid)
    while process.poll() is None:
        family = [root]
        with contextlib.suppress(psutil.Error):
            family += root.children(recursive=True)
        for one in family:
            with contextlib.suppress(psutil.Error, OSError):  # it has ended meanwhile
                words = one.cmdline()
                name = Path(words[0]).name if words else one.name()
                for socket in one.net_connections("inet"):
                    # Of UDP's sockets each hears whoever knows where it is.
                    if socket.status in (psutil.CONN_LISTEN, psutil.CONN_NONE):
                        found.add((name, socket.laddr.ip))
        time.sleep(0.3)
    return found, process.stdout.read()


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data):
    """A run of two ranks on this machine, under an umask that keeps all from strangers: its folder, who listened, and
    what it printed."""
    folder = tmp_path_factory.mktemp("listening") / "run"
    (folder.parent / "net.py").write_text(NETWORK)
    process = started(
        *HOROVODRUN, "-np", 2, sys.executable, ROOT / "launch" / "train.py", "--dataset", "npz", "--data-dir",
        tiny_data, "--model", folder.parent / "net.py:build", "--epochs", 1, "--run-dir", folder, umask=0o027,
    )  # fmt: skip
    found, said = listeners(process)
    assert process.returncode == 0, said
    return folder, found, said


def test_a_run_on_one_machine_is_reached_by_nobody_from_outside(run):
    _, found, _ = run
    assert found, "not even mpirun was seen to listen"
    outside = {(name, address) for name, address in found if address not in LOOPBACK}
    if not (Path(sys.prefix) / "lib" / "liblockstep_loopback.so").exists():
        # A .venv of before: mpirun has no setting against it.
        outside = {(name, address) for name, address in outside if name not in ("mpirun", "orterun")}
    assert outside == set()


def test_its_files_are_for_those_whom_the_umask_lets_read_them(run):
    folder, _, _ = run
    modes = {path: path.lstat().st_mode & 0o777 for path in folder.rglob("*") if not path.is_symlink()}
    assert len(modes) > 12
    assert {path: oct(mode) for path, mode in modes.items() if mode != (0o750 if path.is_dir() else 0o640)} == {}


def test_no_value_of_the_environment_is_in_its_files_nor_in_what_it_prints(run):
    folder, _, said = run
    content = said.encode() + b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert [name for name, value in SECRET.items() if value.encode() in content] == []
    # The search is one that finds: TensorBoard's file, too, is read.
    assert b"net.py:build" in content and str(folder).encode() in content


@pytest.mark.parametrize(
    ("flags", "words"),
    (
        (["--gloo"], "warning: --gloo opens a port on all interfaces that asks for no password"),
        (["--min-np", "1"], "warning: --min-np opens a port on all interfaces where anybody may run code as you"),
        ([], ""),
    ),
)
def test_what_opens_a_door_is_warned_of_at_the_launch(flags, words):
    """Also of a program's own flag of that name nothing is said."""
    process = started(*HOROVODRUN, "-np", 1, *flags, "true" if flags else "echo", "x.py", "--gloo")
    said, _ = process.communicate(timeout=240)
    warnings = [line for line in said.splitlines() if "warning" in line]
    assert len(warnings) == bool(words) and all(words in line and "takes MPI" in line for line in warnings), said


def test_no_shell_sees_what_horovodrun_is_given(tmp_path):
    """Names of variables and words of the program go as they are."""
    odd = {f"A{'B'}": "$(touch executed)"}
    words = [*HOROVODRUN, "-np", "1", "echo", "$(touch executed)", "`touch executed`", ";touch executed", "a  b"]
    done = subprocess.run(words, env=environment() | odd, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert "$(touch executed) `touch executed` ;touch executed a  b" in done.stdout, done
    assert os.listdir(tmp_path) == []
