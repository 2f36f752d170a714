"""check_data finds what is wrong with a data set, names each picture once, and leaves one that can be trained on."""

import contextlib
import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from conftest import ROOT, environment, run_command
from picture_folders import load_folder, make_images
from PIL import Image
from rights import rights

from data.formats.tfrecord.source import load_tfrecord
from launch.check_data import main
from launch.data_check import examine
from launch.data_check.examine import Seen
from launch.data_check.files import check_target
from launch.data_check.problems import Picture, emptied, find_problems, table
from launch.data_check.run import _examined_source
from launch.shards.run import convert
from launch.trained.program import OutputError


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "theirs").mkdir()
    line = ["--dataset", "shapes", "--list", str(tmp_path / "theirs/list")]
    for mode in (0, 0o555):
        with rights(tmp_path / "theirs", mode):
            assert main(line) == 2
            with pytest.raises(OutputError, match="theirs cannot be written to; give another place with --move-to"):
                check_target(tmp_path / "theirs/away", tmp_path / "photos")
        said = capsys.readouterr()
        assert said.out == "" and "theirs cannot be written to; give another place with --list" in said.err
    assert main([*line[:3], str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err


def encoded(seed: int, kind="JPEG", size=(40, 30)) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path):
    """Two classes in train/ and val/, 12 good pictures of each in each; and those that should go, with their kinds."""
    folder, bad, seeds = tmp_path / "photos", {}, itertools.count(100)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for index in range(12):
                (folder / split / name / f"{index}.jpg").write_bytes(encoded(next(seeds)))
    cat = folder / "train" / "cat"
    png = encoded(2, "PNG", (200, 150))
    planted = {
        "empty.jpg": ("empty", b""),
        "half.jpg": ("cut", encoded(3, size=(300, 200))[:9000]),
        "half.png": ("cut", png[: len(png) * 2 // 3]),
        "page.jpg": ("no picture", b"<html><body>not found</body></html>"),
        "webp.jpg": ("no picture", encoded(4, "WEBP")),
        "zeros.png": ("no picture", b"\0" * 9000),
        "dot.gif": ("one pixel", encoded(5, "GIF", (1, 1))),
        "huge.png": ("too large", png[:16] + (20000).to_bytes(4, "big") * 2 + png[24:]),
    }
    for name, (kind, content) in planted.items():
        (cat / name).write_bytes(content)
        bad[f"train/cat/{name}"] = kind
    (cat / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    bad["train/cat/link.jpg"] = "unreadable"
    doubles = {"twice": ("train/cat/x.jpg", "train/cat/y.jpg"), "two splits": ("val/dog/x.jpg", "train/dog/y.jpg")}
    doubles["two classes"] = ("train/dog/z.jpg", "val/cat/z.jpg")
    for number, (kind, places) in enumerate(doubles.items()):
        for place in places:
            (folder / place).write_bytes(encoded(50 + number))
        for place in places if kind == "two classes" else places[1:]:
            bad[place] = kind
    return folder, bad


def test_each_kind_is_found_and_named_and_the_rest_can_be_trained_on(photos, tmp_path, capsys):
    folder, bad = photos
    line = ["--dataset", "image_folder", "--data-dir", str(folder)]
    listed, away = tmp_path / "bad.txt", tmp_path / "away"
    before = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    assert main([*line, "--list", str(listed), "--move-to", str(away)]) == 2
    said = capsys.readouterr().out
    found = {}
    for place, problem in (row.split("\t") for row in listed.read_text().splitlines()):
        found[place.removeprefix(f"{folder}/")] = problem.partition(":")[0]
        assert said.count(f"{place}: ") == 1
    assert found == bad
    assert f"{len(bad)} of {len(before)} pictures should go" in said
    moved = sorted(str(path.relative_to(away)) for path in away.rglob("*.*"))
    assert moved == sorted(bad)
    assert sorted([*moved, *(str(path.relative_to(folder)) for path in folder.rglob("*.*"))]) == before
    assert main(line) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    flags = ["--image-size", "32", "--epochs", "1", "--batch-size", "8", "--run-dir", tmp_path / "run"]
    trained = run_command(sys.executable, ROOT / "launch/train.py", *line, *flags)
    assert trained.returncode == 0, trained.stderr


def test_in_the_test_split_too_each_file_is_found_and_one_without_classes_is_passed_over(photos, tmp_path, capsys):
    folder, bad = photos
    for seed, name in enumerate(("dog", "cat"), 20):
        (folder / "test" / name).mkdir(parents=True)
        (folder / "test" / name / "1.jpg").write_bytes(encoded(seed))
    (folder / "test/dog/empty.jpg").touch()
    (folder / "test/dog/webp.jpg").write_bytes(encoded(4, "WEBP"))
    (folder / "test/dog/link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    line = ["--dataset", "image_folder", "--data-dir", str(folder)]
    assert main(line) == 2
    said = capsys.readouterr().out
    assert "pictures in train, val, test" in said and f"{len(bad) + 3} of " in said
    for name, problem in (("empty", "empty"), ("webp", "no picture"), ("link", "unreadable")):
        assert f"{problem:12}test   dog             {folder}/test/dog/{name}.jpg: " in said
    (folder / "test/7.jpg").write_bytes(encoded(7))
    assert main(line) == 2
    said = capsys.readouterr().out
    assert f"note: the test split is not looked at: {folder}/test has pictures outside of class folders" in said
    assert "pictures in train, val\n" in said and f"{len(bad)} of " in said


def test_a_home_directory_is_one_in_each_flag(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("cat", "dog"):
        (tmp_path / "home/photos" / name).mkdir(parents=True)
        (tmp_path / "home/photos" / name / "1.jpg").write_bytes(encoded(len(name) + ord(name[0])))
    (tmp_path / "home/photos/dog/2.jpg").touch()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    line = ["--dataset", "image_folder", "--data-dir=~/photos", "--move-to", "bad", "--list=$HOME/list"]
    assert main(line) == 2, capsys.readouterr()
    found = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    kept = ["home/list", "home/photos/cat/1.jpg", "home/photos/dog/1.jpg"]
    assert sorted(found) == [*kept, "work/bad/dog/2.jpg"]
    assert main([*line, "--move-to=~/photos/bad"]) == 2 and "lies in" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["inside", "taken"])
def test_nothing_is_moved_where_it_would_stay_in_the_set_or_overwrite(photos, tmp_path, capsys, target):
    folder, _ = photos
    away = folder / "bad" if target == "inside" else tmp_path / "away"
    if target == "taken":
        (away / "train/cat").mkdir(parents=True)
        (away / "train/cat/half.jpg").write_bytes(b"mine")
    before = sorted(folder.rglob("*"))
    assert main(["--dataset", "image_folder", "--data-dir", str(folder), "--move-to", str(away)]) == 2
    assert "--move-to" in capsys.readouterr().err and sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("point", ["before", "within", "after"])
def test_an_interrupt_says_how_many_were_moved_and_leaves_each_whole(photos, tmp_path, capsys, monkeypatch, point):
    """At the fifth file: before it is moved, within its copy to another disk, and after it has been moved."""
    folder, bad = photos
    names, move, number = sorted(path.name for path in folder.rglob("*.*")), shutil.move, itertools.count(1)

    def interrupted(path, place):
        if last := next(number) == 5:
            if point == "within":
                place.write_bytes(b"half")
            if point != "after":
                signal.raise_signal(signal.SIGINT)
        move(path, place)
        if last:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(shutil, "move", interrupted)
    line = ["--dataset", "image_folder", "--data-dir", str(folder), "--move-to"]
    assert main([*line, str(tmp_path / "away")]) == 130
    done = 5 if point == "after" else 4
    assert capsys.readouterr().err.startswith(f"interrupted; {done} of {len(bad)} files were moved; give the command")
    away = [path.name for path in (tmp_path / "away").rglob("*.*")]
    assert len(away) == done and sorted([*away, *(path.name for path in folder.rglob("*.*"))]) == names


# Small enough chunks that 60 pictures are worth several processes.
SEVERAL = """
import sys
from launch.data_check import examine
examine.CHUNK, examine.WORTH = 4, 20
from launch.check_data import main
sys.exit(main(sys.argv[1:]))
"""


def decodes(child: psutil.Process) -> bool:
    """Whether it is one of the processes that decode; others come and go: TensorFlow asks lscpu."""
    with contextlib.suppress(psutil.Error):
        return "spawn_main" in str(child.cmdline())
    return False


def test_a_terminals_interrupt_is_one_line_whatever_processes_it_reaches(photos):
    line = ["--dataset", "image_folder", "--data-dir", str(photos[0]), "--workers", "2"]
    command = [sys.executable, "-c", SEVERAL, *line]
    check = psutil.Popen(
        command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        while sum(decodes(child) for child in check.children()) < 2:
            assert check.poll() is None, check.stderr.read()
            time.sleep(0.02)
        os.killpg(check.pid, signal.SIGINT)
        # Its processes have only begun to load TensorFlow, and are waited for.
        assert check.communicate(timeout=400)[1] == "interrupted; give the same command again\n"
        assert check.returncode == 130
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            check.kill()
        check.wait()


def test_a_table_names_pictures_and_moves_none(photos, tmp_path, capsys):
    folder, _ = photos
    rows = [f"{folder}/train/{name}/{file},{name}" for name in ("cat", "dog") for file in ("1.jpg", "2.jpg", "3.jpg")]
    (tmp_path / "all.csv").write_text("\n".join(["path,label", *rows, f"{folder}/train/cat/half.jpg,dog", ""]))
    line = ["--dataset", "csv", "--data-dir", str(tmp_path / "all.csv")]
    assert main([*line, "--move-to", str(tmp_path / "away")]) == 2
    assert "use --list" in capsys.readouterr().err
    assert main(line) == 2
    said = capsys.readouterr().out
    assert "1 of 7 pictures should go: 1 cut" in said and "dog             " in said
    assert main(["--dataset", "image_folder", "--data-dir", str(tmp_path / "none")]) == 2


def test_arrays_are_looked_at_for_doubles(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    pixels[7] = pixels[2]
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=np.arange(12) % 2, x_val=pixels[:1], y_val=[0])
    assert main(["--dataset", "npz", "--data-dir", str(tmp_path / "a.npz")]) == 2
    assert "3 of 13 pictures should go: 2 two classes, 1 two splits" in capsys.readouterr().out


def test_several_processes_see_what_one_sees(monkeypatch):
    pictures = [encoded(index) for index in range(3)] + [b"", encoded(4)[:600]]
    alone = list(examine.examine_all(pictures, 1))
    assert [one.kind for one in alone] == [None, None, None, "empty", "cut"]
    monkeypatch.setattr(examine, "WORTH", 100)
    assert list(examine.examine_all(pictures * 40, 2)) == alone * 40


def test_a_process_that_the_system_ends_is_a_sentence(monkeypatch):
    """A picture that ends the process which unpacks it, as too little memory does."""
    monkeypatch.setattr(examine, "WORTH", 1)
    with pytest.raises(OutputError, match="one of 2 processes that decode was ended, .* --workers"):
        list(examine.examine_all([encoded(0)] * 100 + [Deadly()] * 100, 2))


class Deadly:
    def __reduce__(self):
        return signal.raise_signal, (signal.SIGKILL,)


def test_shards_that_cannot_be_read_are_a_sentence(tmp_path):
    make_images(tmp_path / "photos", each=2)
    convert(load_folder(tmp_path / "photos"), "image_folder", tmp_path / "shards", shards=1)
    train, _ = load_tfrecord(str(tmp_path / "shards"))
    (shard,) = (tmp_path / "shards").glob("*.tfrecord")
    refused = pytest.raises(OutputError, match=f"^{shard} at byte 0, or .* cannot be read .*Bad file descriptor")
    # Like a disk that answers every read with an error.
    with open(shard, "ab", buffering=0) as train._opened[0], refused:
        list(_examined_source(train, 1))


def test_the_table_is_cut_and_an_emptied_class_is_known():
    pictures = [Picture("train", "ab"[index > 150], f"{index}.jpg") for index in range(160)]
    seen = [Seen("empty", "is empty", b"")] * 151 + [Seen(None, "", b"%d" % index) for index in range(9)]
    problems = find_problems(pictures, seen)
    assert len(problems) == 151 and table(pictures, problems)[-1].startswith("... and 51 more")
    assert emptied(pictures, problems) == [("train", "a")]


def test_of_arrays_too_the_chosen_classes_are_looked_at_alone(tmp_path, capsys):
    pixels, labels = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), np.uint8), np.arange(9) % 3
    pixels[4] = pixels[1]
    np.savez(tmp_path / "set.npz", x_train=pixels, y_train=labels, x_val=pixels[:3] ^ 1, y_val=labels[:3])
    line = ["--dataset", "npz", "--data-dir", str(tmp_path / "set.npz")]
    assert main(line) == 2 and "12 pictures in train, val" in capsys.readouterr().out
    assert main([*line, "--classes", "2,0"]) == 0 and "8 pictures in train, val" in capsys.readouterr().out
    assert main([*line, "--classes", "2,7"]) == 2 and "of which there is no training example" in capsys.readouterr().err
