"""launch/evaluate.py: which pictures it takes, what it leaves, and what it says where it cannot."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import trained
from conftest import BIN, ROOT, environment, run_command
from sklearn import metrics

HERE = "evaluate"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trained.train(tmp_path_factory.mktemp("evaluate"), "photos", "two", "half", "own", "table")


@pytest.fixture(scope="module")
def done(folder):
    """Evaluations, good ones and bad ones, of one process."""
    out, pictures, photos, own = folder / "out", folder / "pictures", folder / "photos", folder / "own"
    mine = folder / "mine.py"
    shutil.copytree(pictures, folder / "moved")
    shutil.copytree(pictures / "val/owl", folder / "subset.2024/owl")
    shutil.copytree(pictures / "val/dog", folder / "subset.2024/dog")
    shutil.copytree(folder / "subset.2024", folder / "foreign")
    shutil.copytree(pictures / "val/cat", folder / "foreign/wolf")
    (folder / "some.csv").write_text(f"path,label\n{pictures / 'val/owl/0002.png'},owl\n")
    (folder / "empty").mkdir()
    (folder / "loose").mkdir()
    shutil.copy(pictures / "val/owl/0002.png", folder / "loose")
    (folder / "half written").mkdir()
    (folder / "half written/config.yaml").write_text("")
    shutil.copytree(own, folder / "other network")
    state = folder / "other network/checkpoints/step-00000006/state.json"
    state.write_text(state.read_text().replace("own", "its"))
    shutil.copytree(own, folder / "damaged")
    with open(folder / "damaged/checkpoints/step-00000006/weights.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0" if file.read(1) != b"\0" else b"\1")
    shutil.copytree(photos, folder / "another")
    shutil.copy(own / "model.json", folder / "another")
    shutil.copytree(photos, folder / "relative")
    for path in (folder / "relative/checkpoints").glob("step-*"):
        trained.change_state(path, lambda state: state["configuration"].update(data_dir="pictures"))
    shutil.copytree(photos, folder / "no model")
    (folder / "no model/model.json").unlink()
    # A run that was trained with --skip-unreadable 2, on these training and validation pictures.
    shutil.copytree(photos, folder / "skipping")
    (folder / "spoilt").mkdir()
    for split in ("train", "val"):
        (folder / "spoilt" / split).symlink_to(pictures / split)
    shutil.copytree(folder / "subset.2024", folder / "spoilt/test")
    for name in ("owl/empty.jpg", "dog/page.png"):
        (folder / "spoilt/test" / name).write_bytes(b"<html>" * ("page" in name))
    for path in (folder / "skipping/checkpoints").glob("step-*"):
        trained.change_state(
            path, lambda state: state["configuration"].update(data_dir=str(folder / "spoilt"), skip_unreadable=2)
        )
    (folder / "full").mkdir()
    (folder / "full/mine.txt").write_text("dear")
    (folder / "taken").write_text("dear")
    shutil.copytree(folder / "subset.2024", folder / "cut")
    cut = folder / "cut/owl/0005.jpg"
    cut.write_bytes(cut.read_bytes()[:-40])  # in mid-pixels: its headers are sound
    for split in ("train", "val"):
        shutil.copytree(pictures / split, folder / "torn" / split)
    (folder / "torn/train/cat/0003.jpg").write_bytes((pictures / "train/cat/0003.jpg").read_bytes()[:-40])
    for name, change in (("torn training", {"data_dir": str(folder / "torn")}), ("many", {"data_dir": "nowhere"})):
        shutil.copytree(photos, folder / name)
        for path in (folder / name / "checkpoints").glob("step-*"):
            trained.change_state(path, lambda state, change=change: state["configuration"].update(change))
            if name == "many":
                trained.change_state(path, lambda state: state["data"]["train"].update(counts={"cat": 10**9}))
    val = ("--split", "val", "--checkpoint", "last", "--out")
    lines = {
        "default": [HERE, photos, "--check-leakage", "on", "--projector"],
        "val": [HERE, photos, *val, out / "val", "--check-leakage", "on"],
        "train": [HERE, photos, "--split", "train", "--out", out / "train"],
        "moved": [HERE, photos, *val, out / "moved", "--data-dir", folder / "moved"],
        "by name": [HERE, photos, "--checkpoint", "step-00000010", "--split", "val", "--out", out / "by name"],
        "subset": [HERE, photos, "--data-dir", folder / "subset.2024"],
        "one picture": [HERE, photos, "--dataset", "csv", "--data-dir", folder / "some.csv", "--out", out / "one"],
        "arrays": [HERE, folder / "half"],
        "table": [HERE, folder / "table"],
        "own": [HERE, own, *val, out / "own", "--check-leakage", "on", "--projector"],
        "turned": [HERE, own, *val, out / "turned", "--dataset", f"{mine}:turned"],
        "two": [HERE, folder / "two", "--out", out / "two"],
        "torn": [HERE, folder / "torn training", "--data-dir", folder / "subset.2024", "--check-leakage", "on"],
        "many": [HERE, folder / "many", "--data-dir", folder / "subset.2024"],
        "single": [HERE, own, "--dataset", f"{mine}:single"],
        "again": [HERE, folder / "table", "--check-leakage", "off"],
        "skipping": [HERE, folder / "skipping"],
        # What cannot be done.
        "no run": [HERE, folder / "nowhere"],
        "no run there": [HERE, folder / "empty"],
        "half written": [HERE, folder / "half written"],
        "no checkpoint": [HERE, photos, "--checkpoint", "step-77"],
        "no run but a checkpoint": [HERE, folder / "nowhere", "--checkpoint", photos / "checkpoints/last"],
        "edited": [HERE, folder / "other network", "--checkpoint", "last"],
        "damaged": [HERE, folder / "damaged", "--checkpoint", "last"],
        "relative": [HERE, folder / "relative"],
        "another network": [HERE, folder / "another"],
        "no network": [HERE, folder / "no model"],
        "foreign class": [HERE, photos, "--data-dir", folder / "foreign"],
        "foreign classes": [HERE, photos, "--dataset", "npz", "--data-dir", folder / "half.npz", "--split", "val"],
        "no pictures": [HERE, photos, "--data-dir", folder / "empty"],
        "no class folders": [HERE, photos, "--data-dir", folder / "loose"],
        "no test split": [HERE, own, "--split", "test"],
        "no such kind": [HERE, photos, "--dataset", "jpeg"],
        "no such function": [HERE, photos, "--dataset", f"{mine}:nothing"],
        "unreadable": [HERE, photos, "--data-dir", folder / "cut", "--out", out / "unreadable"],
        "foreign files": [HERE, photos, "--out", folder / "full"],
        "a file": [HERE, photos, "--out", folder / "taken"],
        "below a file": [HERE, photos, "--out", folder / "taken/deep"],
        "no batch": [HERE, photos, "--batch-size", "0"],
        "no devices": [HERE, photos, "--strategy", "mirrored", "--cpu-devices", "x"],
        "no such flag": [HERE, photos, "--splitt", "val"],
        "no such split": [HERE, photos, "--split", "all"],
        "nothing": [HERE],
    }
    return trained.run_programs(folder / "printed", lines)


GOOD = "default val train moved subset arrays table own turned two torn many single again skipping".split()
GOOD += ["by name", "one picture"]
BAD = {
    "no run": "nowhere is no folder; give a run directory or a checkpoint",
    "no run there": "empty is no run directory; give the folder that a run was told to write to",
    "half written": "half written has no checkpoint yet; let it train to the end of an epoch",
    "no checkpoint": "--checkpoint step-77 is no checkpoint; give best, last or a folder step-XXXXXXXX",
    "no run but a checkpoint": "nowhere is no folder; give a run directory or a checkpoint",
    "edited": "state.json is not the file that was saved",
    "damaged": "weights.safetensors is not the file that was saved",
    "relative": " is not in pictures (seen from /); say with --data-dir where it lies now",
    "another network": "was made by another network than the one here (SHA-256 of its architecture ",
    "no network": "its network, network, came as a Python object, and there is no model.json in its run directory",
    "foreign class": "has the class 'wolf', which the run does not know: expected 'cat', 'dog', 'owl'",
    "foreign classes": "has the class '0', '1', '2', '3', '4', which the run does not know: expected 'cat', 'dog'",
    "no pictures": "empty has no subfolders with pictures: expected one per class",
    "no class folders": "loose has pictures and no class folders: expected a folder per class",
    "no test split": "mine.py:examples has no test split: use --split val or train",
    "no such kind": "--dataset jpeg is unknown; choose one of shapes, ",
    "no such function": "mine.py has no function nothing; it has network, ",
    "unreadable": "cut/owl/0005.jpg: ",
    "foreign files": "full holds mine.txt, which no evaluation has written; move it away or give another folder",
    "a file": "taken is not a folder; move it away or give another name",
    "below a file": "taken is no folder; give another place with --out",
    "no batch": "argument --batch-size: '0' is no number of 1 or more; --help lists all flags",
    "no devices": "argument --cpu-devices: 'x' is no number of 1 or more",
    "no such flag": "unrecognized arguments: --splitt val; --help lists all flags",
    "no such split": "argument --split: invalid choice: 'all'",
    "nothing": "the following arguments are required: RUN",
}


def test_what_can_be_done_is_done(done):
    assert {name: done.codes[name] for name in GOOD} == dict.fromkeys(GOOD, 0)
    assert [done.err(name) for name in GOOD] == [""] * len(GOOD)


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(done, name):
    lines = done.err(name).splitlines()
    assert done.codes[name] == 2 and len(lines) == 1, lines
    assert lines[0].startswith("error: ") and BAD[name] in lines[0]
    assert "pictures evaluated" not in done.out(name)


def test_nothing_is_left_of_what_could_not_be_done(folder, done):
    assert not (folder / "out/unreadable").exists()
    assert [(folder / name).read_text() for name in ("full/mine.txt", "taken")] == ["dear", "dear"]
    assert [path for path in folder.rglob(".*") if "writing" in path.name or "former" in path.name] == []
    assert done.codes.keys() == {*GOOD, *BAD}


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_test_split_is_taken_where_there_is_one(folder, done):
    for name, place, count in (("default", "photos", 1003), ("arrays", "half", 47), ("table", "table", 42)):
        out = folder / place / "evaluation-test"
        assert f"{count:,} of {count:,} pictures evaluated" in done.out(name) and f", test, {count:,}" in done.out(name)
        said = json.loads((out / "metrics.json").read_text())
        assert (said["examples"], said["split"]) == (count, "test")
        assert len(table(out / "predictions.csv")) == count and f"files: {out}/ (" in done.out(name)
    # Files by their place, arrays by their index.
    paths = {row["path"] for row in table(folder / "photos/evaluation-test/predictions.csv")}
    assert paths == {str(path) for path in (folder / "pictures/test").rglob("*.*")}
    assert [row["path"] for row in table(folder / "half/evaluation-test/predictions.csv")] == list(map(str, range(47)))


@pytest.mark.parametrize("place", ["photos/evaluation-test", "out/two", "out/own", "table/evaluation-test"])
def test_every_number_follows_from_predictions_csv(folder, done, place):
    """scikit-learn says of predictions.csv what metrics.json and per_class.csv say."""
    rows, said = table(folder / place / "predictions.csv"), json.loads((folder / place / "metrics.json").read_text())
    per_class = table(folder / place / "per_class.csv")
    names = [row["class"] for row in per_class]
    true, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    assert said["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted), rel=1e-12)
    scores = metrics.precision_recall_fscore_support(true, predicted, labels=names, zero_division=0)
    for column, values in zip(("precision", "recall", "f1", "count"), scores, strict=True):
        assert [float(row[column] or 0) for row in per_class] == pytest.approx(values.tolist(), rel=1e-12)
    for average, values in (("macro", scores),):
        for column, value in zip(("precision", "recall", "f1"), values, strict=False):
            assert said[f"{average}_{column}"] == pytest.approx(np.mean(value), rel=1e-12)
    sure = np.array([float(row["probability_of_label"]) for row in rows])
    assert said["loss"] == pytest.approx(-np.log(sure).mean(), rel=1e-5)
    best = [[row[name] for name in row if name.startswith("top") and "_" not in name] for row in rows]
    assert [row[0] for row in best] == predicted and all(len({*row}) == min(5, len(names)) for row in best)
    if len(names) == 2:
        assert all(float(row["top1_probability"]) + float(row["top2_probability"]) == pytest.approx(1) for row in rows)


def test_the_runs_data_in_another_place_is_still_its_own(folder, done):
    """Also its validation split, and what is found in training."""
    here, there = (json.loads((folder / "out" / name / "metrics.json").read_text()) for name in ("val", "moved"))
    assert here == there and here["examples"] == 31
    assert here == json.loads((folder / "out/by name/metrics.json").read_text())
    assert "leakage: none of the 31 pictures is a training picture" in done.out("moved")


def test_a_subset_of_the_classes_is_allowed_and_said(folder, done):
    assert "20 pictures of 2 of the run's 3 classes" in done.out("subset")
    out = folder / "photos/evaluation-subset.2024-all"
    assert {row["label"] for row in table(out / "predictions.csv")} == {"dog", "owl"}
    assert json.loads((out / "metrics.json").read_text())["classes_without_examples"] == ["cat"]
    assert "1 pictures of 1 of the run's 3 classes" in done.out("one picture")
    # The same pictures have the same answers, whatever is evaluated beside them.
    whole = {row["path"].split("/")[-1]: row for row in table(folder / "out/by name/predictions.csv")}
    for row in table(out / "predictions.csv"):
        assert {**row, "path": ""} == {**whole[row["path"].split("/")[-1]], "path": ""}


def test_files_that_are_no_pictures_are_left_out_as_in_training_and_named(folder, done):
    lines = done.out("skipping").splitlines()
    assert lines[1].endswith("/spoilt, test, 20 pictures of 2 of the run's 3 classes")
    place = folder / "spoilt/test"
    first = lines.index("note: 2 left out by --skip-unreadable:")
    assert lines[first : first + 3] == [
        "note: 2 left out by --skip-unreadable:",
        f"  {place}/dog/page.png: is a web page, not a picture",
        f"  {place}/owl/empty.jpg: is empty",
    ]
    assert len(table(folder / "skipping/evaluation-test/predictions.csv")) == 20


def test_classes_in_another_order_mean_the_same(folder, done):
    given, turned = (folder / "out" / name / "predictions.csv" for name in ("own", "turned"))
    assert given.read_text() == turned.read_text()


def test_data_of_another_function_may_have_one_picture_of_each_class(folder, done):
    assert "5 of 5 pictures evaluated" in done.out("single")
    assert (folder / "own/evaluation-mine.py-single-all/metrics.json").exists()


def test_training_pictures_among_the_evaluated_are_found(folder, done):
    pictures = folder / "pictures"
    twins = [["cat/0003.jpg"] * 2, ["dog/0004.png"] * 2]
    rows = table(folder / "photos/evaluation-test/leakage.csv")
    assert [[*row.values()] for row in rows] == [
        [f"{pictures}/test/{one}", f"{pictures}/train/{other}", "1"] for one, other in twins
    ]
    assert "leakage: 2 of 1,003 pictures found among the training pictures: " in done.out("default")
    # Unasked, only the same files are found.
    assert f"leakage: 1 of 42 pictures found among the training pictures: {pictures}/test/cat/0003" in done.out("table")
    assert "leakage: none of the 31 pictures is a training picture" in done.out("val")
    assert not (folder / "out/val/leakage.csv").exists() and "leakage" not in done.out("train")


def test_leakage_that_cannot_be_looked_for_costs_no_evaluation(folder, done):
    """Neither is data opened that would take too long."""
    assert f"leakage: not looked for, {folder}/torn/train/cat/0003.jpg cannot be decoded" in done.out("torn")
    assert re.search("leakage: not looked for, as it would take about [0-9]+ s; --check-leakage on", done.out("many"))
    assert (folder / "torn training/evaluation-subset.2024-all/metrics.json").exists()


def test_an_evaluation_replaces_an_earlier_one_whole(folder, done):
    names = {"metrics.json", "per_class.csv", "predictions.csv", "confusion.png", "worst.png"}
    assert {path.name for path in (folder / "photos/evaluation-test").iterdir()} == names | {"leakage.csv"}
    assert "leakage" in done.out("table") and "leakage" not in done.out("again")
    assert {path.name for path in (folder / "table/evaluation-test").iterdir()} == names


def test_the_projector_has_a_row_for_each_picture(folder, done):
    for run, name, count, width in (("photos", "test", 1003, 48), ("own", "own", 23, 8)):
        # Another name could be that of the run's own curves.
        board = folder / run / "tensorboard" / f"evaluation-{name}"
        assert f"projector: tensorboard --logdir {folder / run / 'tensorboard'}" in done.out(
            "default" if run == "photos" else "own"
        )
        assert (board / "features.bytes").stat().st_size == 4 * count * width
        rows = (board / "metadata.tsv").read_text().splitlines()
        assert rows[0] == "label\tpredicted\tpath" and len(rows) == 1 + count
        assert {"projector_config.pbtxt", "thumbnails.png"} <= {path.name for path in board.iterdir()}


def test_a_full_disk_leaves_nothing(folder, tmp_path):
    """No file may grow beyond 16 kB, which predictions.csv does."""
    line = f"ulimit -f 16; exec {BIN}/python {ROOT}/launch/evaluate.py {folder}/photos --out {tmp_path}/out"
    # Python would keep half of a module that it had to compile.
    done = run_command("bash", "-c", line, PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "predictions.csv cannot be written (File too large)" in done.stderr
    assert [*tmp_path.iterdir()] == []
    assert "macro precision" in done.stdout  # what is known is said


@pytest.mark.faults
@pytest.mark.parametrize("launcher", [(), ("horovodrun", "-np", "2")])
def test_ctrl_c_leaves_nothing_half_written(folder, tmp_path, launcher):
    words = [*launcher, BIN / "python", ROOT / "launch/evaluate.py", folder / "photos", "--out", tmp_path / "out"]
    for seconds in (0, 2, 5):  # after it has said what it evaluates
        job = subprocess.Popen(
            list(map(str, [*words, "--batch-size", 1])),
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert any("data: " in line for line in job.stdout), job.stderr.read()
        time.sleep(seconds)
        os.killpg(job.pid, signal.SIGINT)
        _, said = job.communicate(timeout=60)
        assert "Traceback" not in said, said
        assert {path.name for path in tmp_path.iterdir()} <= {"out"}
        assert (tmp_path / "out").exists() or job.returncode == 130, (seconds, job.returncode, said)
        if (tmp_path / "out").exists():
            assert len(table(tmp_path / "out/predictions.csv")) == 1003
            shutil.rmtree(tmp_path / "out")
