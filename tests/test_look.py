"""The first look at many files, by processes without TensorFlow: what one process would have found."""

import itertools
import os
import signal
import subprocess

import numpy as np
import pytest
from layouts import JPEG
from test_exif import jpeg, segment, tiff

from data.datasets import DataError
from data.files.source import FileSource
from data.pictures import check, headers, look


@pytest.fixture
def source(tmp_path):
    """1,000 files: pictures, turned pictures, one that is cut, one that is a page, one that is gone, one that is a
    pipe; and names that are not UTF-8."""
    turned = jpeg(segment(0xE1, tiff(6, "<")))
    names = [os.fsdecode(b"\xff%d.jpg" % number) for number in range(1000)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(turned if number % 100 == 7 else JPEG)
    (tmp_path / names[3]).write_bytes(JPEG[:20])
    (tmp_path / names[500]).write_text("<html>not found</html>")
    (tmp_path / names[998]).unlink()
    (tmp_path / names[999]).unlink()
    os.mkfifo(tmp_path / names[999])
    return FileSource("image_folder", ["a", "b"], str(tmp_path), names, np.arange(1000) % 2)


@pytest.fixture
def many(monkeypatch):
    """All data sets count as large ones; gives the processes that were started."""
    started = []

    def start(*words, real=subprocess.Popen, **named):
        started.append(real(*words, **named))
        return started[-1]

    monkeypatch.setattr(look, "MANY", 1)
    monkeypatch.setattr(look, "PART", 64)
    monkeypatch.setattr(subprocess, "Popen", start)
    return started


def looked(source):
    found = check.look_at(source)
    return found, source.sizes.tolist()


def test_processes_find_what_one_finds(source, monkeypatch, many):
    with monkeypatch.context() as few:
        few.setattr(look, "MANY", 10_000)
        expected = looked(source)
    assert not many and sorted(expected[0].problems) == [3, 500, 998, 999] and expected[0].turned == 10
    told = []
    assert check.look_at(source, lambda *facts: told.append(facts)) == expected[0]
    assert source.sizes.tolist() == expected[1]
    assert told[-1] == (check.LOOKING, 1000, 1000) and len(told) == 16
    assert len(many) >= 2 and all(process.returncode is not None for process in many)
    with pytest.raises(DataError, match="4 of 1,000 files cannot be pictures"):
        check.check_pictures([source])


@pytest.mark.parametrize("moment", ["before it is asked", "before it answers"])
def test_a_process_that_somebody_ends_is_replaced_by_this_one(source, monkeypatch, many, moment):
    expected = looked(source)
    real, looks, asked, send = headers.look_at_each, [], itertools.count(), look._send
    monkeypatch.setattr(headers, "look_at_each", lambda places: looks.append(len(places)) or real(places))

    def ended(pipe, message):
        if next(asked) != 3:
            return send(pipe, message)
        (process,) = [one for one in many if one.stdin is pipe]
        process.send_signal(signal.SIGKILL if moment == "before it is asked" else signal.SIGSTOP)
        if moment == "before it is asked":
            process.wait()
        send(pipe, message)
        process.kill()

    monkeypatch.setattr(look, "_send", ended)
    assert looked(source) == expected
    # And what the process would have been asked for later.
    assert looks and set(looks) <= {64, 1000 % 64}


def test_where_no_process_can_be_started_this_one_looks(source, monkeypatch, many):
    expected = looked(source)
    monkeypatch.setattr(look.sys, "executable", "/nowhere/python")
    count = len(many)
    assert looked(source) == expected and len(many) == count


def test_none_is_left_when_looking_is_broken_off(source, many):
    def broken(*facts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:
        check.look_at(source, broken)
    assert kept.traceback and len(many) >= 2 and all(process.returncode is not None for process in many)


def test_its_processes_load_no_tensorflow(tmp_path):
    """They would take seconds and hundreds of megabytes."""
    code = look.CODE.replace("look.serve(", "print(sorted(sys.modules)); (lambda *pipes: None)(")
    package = os.path.dirname(os.path.dirname(look.__file__))
    command = [look.sys.executable, "-I", "-S", "-c", code, package]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "data.pictures.headers" in done.stdout
    assert not any(name in done.stdout for name in ("tensorflow", "numpy", "site-packages"))
