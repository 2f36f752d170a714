"""launch/predict.py: rows in the order asked for, also of what cannot be read; the pixels are those of validation."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import trained
from conftest import BIN, ROOT, run_command
from PIL import Image
from rights import rights

from launch.predict import create_parser
from launch.prediction.run import check_options
from launch.trained.program import OutputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trained.train(tmp_path_factory.mktemp("predict"), "photos", "two")


@pytest.fixture(scope="module")
def done(folder):
    """Predictions, good ones and bad ones, of one process."""
    photos, val, bad, out = folder / "photos", folder / "pictures/val", folder / "bad", folder / "out"
    for place in (bad / "deep/er", bad / ".hidden", out, folder / "empty"):
        place.mkdir(parents=True)
    shutil.copy(val / "owl/0005.jpg", bad / "z.JPEG")
    shutil.copy(val / "owl/0002.png", bad / ".hidden/y.png")
    Image.open(val / "cat/0000.png").save(bad / "deep/a.bmp")
    shutil.copy(val / "cat/0000.png", bad / "deep/er/b.png")
    (bad / "deep/text.jpg").write_text("no picture")
    (bad / "deep/empty.png").touch()
    (bad / "deep/cut.jpg").write_bytes((val / "owl/0005.jpg").read_bytes()[:200])
    (bad / "deep/cut.png").write_bytes((val / "owl/0002.png").read_bytes()[:100])
    (bad / "deep/notes.txt").write_text("")
    shutil.copy(val / "cat/0000.png", os.fsencode(folder / "empty").replace(b"empty", b"caf\xe9.png"))
    shutil.copy(val / "cat/0000.png", folder / "[1]\n, \u2192.png")
    make_like_training(folder / "linked", val)
    (folder / "circle/cat").mkdir(parents=True)
    (folder / "circle/cat/again").symlink_to(folder / "circle")
    one = val / "dog/0001.jpg"
    lines = {
        "console": ["predict", photos, one, val / "cat", "--top", 2],
        "all": ["predict", photos, bad, one, f"{val}/*/000[45]*", "--out", out / "all.csv"],
        "all json": ["predict", photos, bad, one, f"{val}/*/000[45]*", "--out", out / "all.json"],
        "list": ["predict", photos, one, "-", val / "owl/0002.png", "--out", out / "list.csv", "--top", 1],
        "bytes": ["predict", photos, "-", "--out", out / "bytes.csv"],
        "zeros": ["predict", photos, "-", "--out", out / "zeros.csv"],
        "names": [
            *("predict", photos, os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"), folder / "[1]\n, \u2192.png"),
            *("--out", out / "names.csv"),
        ],
        "same json": ["predict", photos, one, folder / "[1]\n, \u2192.png", "--out", out / "names.json"],
        "sheet": ["predict", photos, val, bad / "deep/text.jpg", "--sheet", out / "sheet.png"],
        "linked": ["predict", photos, folder / "linked", "--out", out / "linked.csv"],
        "two": ["predict", folder / "two", val, "--out", out / "two.csv"],
        # What cannot be done.
        "nothing there": ["predict", photos, one, folder / "nowhere.jpg", f"{val}/*.gif"],
        "no picture": ["predict", photos, folder / "empty"],
        "circle": ["predict", photos, one, folder / "circle"],
        "empty list": ["predict", photos, "-"],
        "no run": ["predict", folder / "empty", one],
        "top 0": ["predict", photos, one, "--top", "0"],
        "top many": ["predict", photos, one, "--top", "many"],
        "kind": ["predict", photos, one, "--out", out / "p.txt"],
        "kind of sheet": ["predict", photos, one, "--sheet", out / "p.jpg"],
        "no folder": ["predict", photos, one, "--out", folder / "none/p.csv"],
        "a folder": ["predict", photos, one, "--sheet", out / "s.png", "--out", folder / "folder.csv"],
        "no input": ["predict", photos],
    }
    (folder / "folder.csv").mkdir()
    listed = f"{val / 'cat/0003.jpg'}\n{folder / 'gone.jpg'}\r\n\n{bad / 'deep/er'}\n"
    strange = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")
    zeros = f"{folder}/[1]\n, \u2192.png\0{strange}\0{one}\0"
    stdin = {"list": listed, "bytes": f"{strange}\n{strange}gone\n", "zeros": zeros}
    return trained.run_programs(folder / "printed", lines, stdin=stdin)


def make_like_training(place, val):
    """Folders with what training follows, takes and leaves alone by its name."""
    for name in ("owl/@eaDir", "@eaDir", "owl/__MACOSX", "$RECYCLE.BIN"):
        (place / name).mkdir(parents=True)
        shutil.copy(val / "owl/0005.jpg", place / name / "a.jpg")
    shutil.copy(val / "owl/0005.jpg", place / "owl/b.jfif")
    shutil.copy(val / "owl/0005.jpg", place / "owl/c.JPE")
    (place / "cat").symlink_to(val / "cat")
    (place / "owl/more").symlink_to(val / "dog")


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


BAD = {
    "nothing there": "nowhere.jpg, ",
    "no picture": "there is no picture (.jpg, .jpeg, .png, .gif, .bmp) in ",
    "empty list": "there is no picture (.jpg, .jpeg, .png, .gif, .bmp) in -; give files or folders that hold some",
    "circle": "again is a link to ",
    "no run": "empty is no run directory; give the folder that a run was told to write to",
    "top 0": "argument --top: '0' is no number of 1 or more; --help lists all flags",
    "top many": "argument --top: 'many' is no number of 1 or more",
    "kind": "p.txt is of no known kind; end it with .csv or .json",
    "kind of sheet": "p.jpg is of no known kind; end it with .png",
    "no folder": "there is no folder ",
    "a folder": "folder.csv is a folder; name a file",
    "no input": "the following arguments are required: INPUT",
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(folder, done, name):
    lines = done.err(name).splitlines()
    assert done.codes[name] == 2 and done.out(name) == "" and len(lines) == 1, lines
    assert lines[0].startswith("error: ") and BAD[name] in lines[0]


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    """Below a folder that may not even be entered as well."""
    (tmp_path / "theirs").mkdir()
    for mode in (0, 0o555):
        for out in ("theirs/p.csv", "theirs/more/p.csv"):
            options = create_parser().parse_args(["RUN", "a.jpg", "--out", str(tmp_path / out)])
            with rights(tmp_path / "theirs", mode), pytest.raises(OutputError, match="theirs cannot be written to"):
                check_options(options)


def test_nothing_is_left_of_what_could_not_be_done(folder, done):
    kept = {"all.csv", "all.json", "bytes.csv", "linked.csv", "list.csv", "names.csv", "names.json", "sheet.png"}
    kept |= {"two.csv", "zeros.csv"}
    assert {path.name for path in (folder / "out").iterdir()} == kept
    assert [path.name for path in folder.iterdir() if path.name.endswith(".tmp")] == []


def test_without_a_file_there_is_a_line_per_picture(folder, done):
    assert done.codes["console"] == 0
    lines, val = done.out("console").splitlines(), folder / "pictures/val"
    asked = [val / "dog/0001.jpg", *sorted((val / "cat").iterdir())]
    assert [line.split("  ")[0] for line in lines] == list(map(str, asked))
    for line in lines:
        (_, first, second) = line.split("  ")
        (one, sure), (other, less) = first.split(), second.split()
        assert {one, other} <= {*trained.NAMES} and float(sure) >= float(less) and len(sure) == 6
    # stdout has the answers alone.
    assert done.err("console").startswith("12 of 12 pictures, ")


def test_rows_come_in_the_order_asked_for_with_a_reason_where_one_cannot_be_read(folder, done):
    bad, val = folder / "bad", folder / "pictures/val"
    found = rows(folder / "out/all.csv")
    deep = [bad / "deep" / name for name in ("a.bmp", "cut.jpg", "cut.png", "empty.png", "text.jpg", "er/b.png")]
    globbed = [val / name for name in ("cat/0040.png", "dog/0004.png", "owl/0005.jpg")]
    asked = [bad / "z.JPEG", *deep, val / "dog/0001.jpg", *filter(os.path.exists, globbed)]
    assert [row["path"] for row in found] == list(map(str, asked))
    reasons = {row["path"].rpartition("/")[2]: row["error"] for row in found if row["error"]}
    assert reasons.keys() == {"cut.jpg", "cut.png", "empty.png", "text.jpg"} and all(map(str.strip, reasons.values()))
    shown = (ROOT / "docs/after_training.md").read_text()
    assert f"/notes.jpg  error: {reasons['text.jpg']}\n" in shown and f"/notes.jpg ({reasons['text.jpg']})" in shown
    for row in found:
        cells = [value for name, value in row.items() if name not in ("path", "error")]
        assert any(cells) != bool(row["error"]) and all(cells) == any(cells)
    assert done.codes["all"] == 2
    first, count, error = done.err("all").splitlines()
    assert first == "passed over, as no pictures by their names: 1"
    assert count.startswith(f"{len(asked) - 4} of {len(asked)} pictures, ")
    assert error == f"error: no answer for {bad}/deep/cut.jpg ({reasons['cut.jpg']}) and 3 more; the rest is done"
    # The same picture in another format.
    same = {row["path"].rpartition("/")[2]: row for row in found}
    assert {**same["a.bmp"], "path": ""} == {**same["b.png"], "path": ""}


def test_a_folder_has_the_pictures_that_training_finds_in_it(folder, done):
    from data.formats.image_folder import class_folders

    trained_on = class_folders(str(folder / "linked"))
    found = rows(folder / "out/linked.csv")
    paths = [trained_on.where(index) for index in range(len(trained_on))]
    assert sorted(row["path"] for row in found) == sorted(paths) and len(paths) > 20
    assert {row["error"] for row in found} == {""} and done.codes["linked"] == 0


def test_json_and_csv_agree(folder, done):
    table, objects = rows(folder / "out/all.csv"), json.loads((folder / "out/all.json").read_text())
    assert done.codes["all json"] == 2 and len(table) == len(objects)
    for row, found in zip(table, objects, strict=True):
        assert row["path"] == found["path"] and row["error"] == found.get("error", "")
        if not row["error"]:
            best = [(row[f"top{place}"], float(row[f"top{place}_probability"])) for place in (1, 2, 3)]
            assert [(top["label"], top["probability"]) for top in found["top"]] == best
            assert (found["label"], found["probability"]) == best[0] == (row["label"], float(row["probability"]))
            assert sum(sure for _, sure in best) == pytest.approx(1, abs=1e-6)


def test_a_list_on_standard_input_stands_where_its_dash_does(folder, done):
    val = folder / "pictures/val"
    found = rows(folder / "out/list.csv")
    listed = [val / "cat/0003.jpg", folder / "gone.jpg", folder / "bad/deep/er/b.png"]
    assert [row["path"] for row in found] == list(map(str, [val / "dog/0001.jpg", *listed, val / "owl/0002.png"]))
    assert [bool(row["error"]) for row in found] == [False, False, True, False, False] and done.codes["list"] == 2
    assert "No such file" in found[2]["error"]
    assert list(found[0]) == ["path", "label", "probability", "top1", "top1_probability", "error"]


def test_a_list_may_be_of_any_bytes_and_end_names_by_zeros(folder, done):
    strange = f"{folder}/caf\\udce9.png"
    assert [row["path"] for row in rows(folder / "out/bytes.csv")] == [strange, f"{strange}gone"]
    assert done.codes["bytes"] == 2 and "no answer for " in done.err("bytes")
    names = [f"{folder}/[1]\n, \u2192.png", strange, f"{folder}/pictures/val/dog/0001.jpg"]
    assert [row["path"] for row in rows(folder / "out/zeros.csv")] == names and done.codes["zeros"] == 0


def test_any_name_of_a_file_will_do(folder, done):
    assert (done.codes["names"], done.codes["same json"]) == (0, 0)
    strange = str(folder / "[1]\n, \u2192.png")
    assert [row["path"] for row in rows(folder / "out/names.csv")] == [f"{folder}/caf\\udce9.png", strange]
    assert json.loads((folder / "out/names.json").read_text())[1]["path"] == strange


def test_two_classes_have_two_probabilities(folder, done):
    for row in rows(folder / "out/two.csv"):
        assert {row["top1"], row["top2"]} == {"0", "1"} and row["label"] == row["top1"]
        assert float(row["top1_probability"]) + float(row["top2_probability"]) == pytest.approx(1)


def test_a_sheet_shows_what_could_be_read(folder, done):
    assert done.codes["sheet"] == 2 and done.out("sheet") == ""
    with Image.open(folder / "out/sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 1000 and sheet.height > 600  # 31 pictures, 8 in a row


@pytest.mark.faults
def test_a_full_disk_leaves_nothing(folder, tmp_path):
    """No file may grow beyond 16 kB, which predictions.csv does."""
    line = f"ulimit -f 16; exec {BIN}/python {ROOT}/launch/predict.py {folder}/photos {folder}/pictures/test"
    done = run_command("bash", "-c", f"{line} --out {tmp_path}/p.csv")
    assert done.returncode == 2, done.stderr
    (error,) = done.stderr.splitlines()
    assert error == f"error: {tmp_path}/p.csv cannot be written (File too large); nothing was left; mend that"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("augment", "size"), [("none", 8), ("inception", 40)])
def test_predict_sees_the_pixels_that_validation_sees(folder, augment, size):
    from data.files.source import FileSource
    from data.order import SequentialOrder, Share
    from data.pipeline import prediction_batches, validation_batches
    from data.views import evaluation_images

    paths = [str(path) for path in sorted((folder / "pictures/val").rglob("*.*"))]
    source = FileSource("files", ("a", "b"), "", paths, np.zeros(len(paths)))
    order = SequentialOrder(examples=len(paths), replica_batch=5, replicas=1)
    how = {"order": order, "share": Share(0, 1), "augment": augment, "image_size": size, "threads": 2}
    validated = np.concatenate([images for images, *_ in validation_batches(source, **how)])[: len(paths)]
    predicted = np.concatenate([images for images, *_ in prediction_batches(source, **how)])[: len(paths)]
    shown = evaluation_images(source, range(len(paths)), augment, size).numpy()
    assert len(paths) == 31 and validated.std() > 10
    for index, path in enumerate(paths):
        assert (predicted[index] == validated[index]).all() and (shown[index] == validated[index]).all(), path
