"""The folder of an evaluation: what stands in its files, and that it is whole or as it was."""

import csv
import errno
import json
import os

import numpy as np
import pytest
from rights import rights
from test_classification import answers

from launch.evaluation import files
from launch.evaluation.classification import EvaluationError, report
from launch.evaluation.leakage import Twin
from launch.trained.program import OutputError

ODD = ("plain", 'with "quotes"', "with, comma", "two\nlines", "naïve 猫", "=1+1")


def written(folder, n=200, names=ODD, places=None):
    labels, probabilities, losses = answers(n, len(names))
    judged = report(labels, probabilities, losses)
    places = [f"a,b/{index}.jpg" for index in range(n)] if places is None else places
    with files.whole_folder(folder) as writing:
        files.write(writing, judged, labels, probabilities, names, places, {"model": "alexnet"})
    return labels, probabilities, judged


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_predictions_read_back_as_the_very_answers(tmp_path):
    labels, probabilities, judged = written(tmp_path / "out")
    rows = table(tmp_path / "out" / "predictions.csv")
    assert list(rows[0])[:6] == ["path", "label", "predicted", "correct", "probability", "probability_of_label"]
    assert list(rows[0])[6:8] == ["top1", "top1_probability"] and list(rows[0])[-1] == "top5_probability"
    assert [row["path"] for row in rows] == [f"a,b/{index}.jpg" for index in range(200)]
    assert [row["label"] for row in rows] == [ODD[label] for label in labels]
    assert [row["predicted"] for row in rows] == [ODD[label] for label in judged.predicted]
    assert [int(row["correct"]) for row in rows] == (judged.predicted == labels).tolist()
    for place in range(5):
        assert [row[f"top{place + 1}"] for row in rows] == [ODD[label] for label in judged.top[:, place]]
        found = np.array([row[f"top{place + 1}_probability"] for row in rows], np.float32)
        np.testing.assert_array_equal(found, probabilities[np.arange(200), judged.top[:, place]])
    own = np.array([row["probability_of_label"] for row in rows], np.float32)
    np.testing.assert_array_equal(own, probabilities[np.arange(200), labels])
    # No digit more than it takes.
    assert all(row["probability"] == str(np.float32(row["probability"])) == row["top1_probability"] for row in rows)


def test_two_classes_have_two_in_their_top(tmp_path):
    written(tmp_path / "out", names=("cat", "dog"), places=range(200))
    rows = table(tmp_path / "out" / "predictions.csv")
    assert list(rows[0])[-1] == "top2_probability" and rows[7]["path"] == "7"


def test_metrics_and_classes_are_the_reports(tmp_path):
    names = (*ODD, "never seen")
    labels, probabilities, losses = answers(100, 6)
    probabilities = np.pad(probabilities, ((0, 0), (0, 1)))
    judged = report(labels, probabilities, losses)
    with files.whole_folder(tmp_path / "out") as writing:
        files.write(writing, judged, labels, probabilities, names, range(100), {"model": "alexnet"})
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(found)[:5] == ["format", "model", "examples", "loss", "accuracy"]
    assert (found["examples"], found["loss"], found["accuracy"]) == (100, judged.loss, judged.accuracy)
    assert found["accuracy_95_interval"] == list(judged.accuracy_interval)
    assert found["top5_accuracy"] == judged.top5_accuracy and found["macro_f1"] == judged.macro_f1
    assert found["classes_without_examples"] == ["never seen"]
    assert found["most_confused"][0]["count"] == judged.confused[0].count
    rows = table(tmp_path / "out" / "per_class.csv")
    assert [row["class"] for row in rows] == list(names)
    assert [float(row["recall"]) for row in rows[:6]] == [score.recall for score in judged.classes[:6]]
    # A class without examples has no recall.
    assert rows[6] == {
        "class": "never seen", "count": "0", "predicted": "0", "correct": "0", "precision": "", "recall": "", "f1": ""
    }  # fmt: skip


def test_the_same_evaluation_gives_the_same_bytes_with_unix_line_ends(tmp_path):
    written(tmp_path / "a")
    written(tmp_path / "b")
    found = contents(tmp_path / "a")
    assert found == contents(tmp_path / "b") and set(found) == {"metrics.json", "per_class.csv", "predictions.csv"}
    assert not any(b"\r" in content for content in found.values())


def test_a_file_name_that_is_no_utf8_leaves_a_table_that_is(tmp_path):
    written(tmp_path / "out", n=2, places=[os.fsdecode(b"caf\xe9.jpg"), "b.jpg"])
    assert table(tmp_path / "out" / "predictions.csv")[0]["path"] == "caf\\udce9.jpg"


def test_an_evaluation_that_fails_leaves_the_earlier_one(tmp_path):
    written(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(OSError, match="full"), files.whole_folder(tmp_path / "out") as writing:
        (writing / "metrics.json").write_text("half")
        raise OSError(errno.ENOSPC, "full")
    assert contents(tmp_path / "out") == before and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_evaluation_replaces_the_earlier_one_whole(tmp_path):
    written(tmp_path / "out")
    with files.whole_folder(tmp_path / "out") as writing:
        assert (tmp_path / "out" / "predictions.csv").exists()
        (writing / "metrics.json").write_text(json.dumps({"format": files.FORMAT}))
    assert set(contents(tmp_path / "out")) == {"metrics.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_crash_between_the_two_renames_loses_nothing(tmp_path):
    written(tmp_path / "out")
    before = contents(tmp_path / "out")
    os.rename(tmp_path / "out", tmp_path / ".former-out")
    (tmp_path / ".writing-out").mkdir()
    with pytest.raises(OSError, match="again"), files.whole_folder(tmp_path / "out"):
        raise OSError("again")
    assert contents(tmp_path / "out") == before and [path.name for path in tmp_path.iterdir()] == ["out"]


def make_file(target):
    target.write_text("mine")


def make_link(target):
    target.with_name("elsewhere").mkdir()
    target.symlink_to(target.with_name("elsewhere"))


def make_notes(target):
    written(target)
    (target / "notes.txt").write_text("mine")


def make_others_metrics(target):
    target.mkdir()
    (target / "metrics.json").write_text('{"accuracy": 1}')


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_file, "is not a folder"),
        (make_link, "is not a folder"),
        (make_notes, "holds notes.txt, which no evaluation has written"),
        (make_others_metrics, "has no metrics.json of an evaluation"),
    ],
)
def test_what_is_no_evaluation_is_never_replaced(tmp_path, make, words):
    target = tmp_path / "out"
    make(target)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(EvaluationError, match=words), files.whole_folder(target):
        raise AssertionError("the work was done for nothing")
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_written_is_refused_before_the_work_is_done(tmp_path):
    (tmp_path / "theirs").mkdir()
    for mode in (0, 0o555):
        for out in ("theirs/out", "theirs/new/out"):
            refused = pytest.raises(OutputError, match="theirs cannot be written to; give another place with --out")
            with rights(tmp_path / "theirs", mode), refused:
                files.check_replaceable(tmp_path / out)


def test_what_somebody_puts_there_meanwhile_is_kept(tmp_path):
    with pytest.raises(EvaluationError, match="holds notes.txt"), files.whole_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
    assert set(contents(tmp_path / "out")) == {"notes.txt"}


def test_an_empty_folder_is_taken_and_a_missing_parent_is_made(tmp_path):
    (tmp_path / "empty").mkdir()
    written(tmp_path / "empty")
    written(tmp_path / "a" / "b")
    assert contents(tmp_path / "empty") == contents(tmp_path / "a" / "b")


def test_leakage_is_a_table(tmp_path):
    files.write_leakage(tmp_path, [Twin(3, 8, 2)], ["test/3.png"], ["train/8.jpg"])
    assert table(tmp_path / "leakage.csv") == [
        {"path": "test/3.png", "training_path": "train/8.jpg", "training_copies": "2"}
    ]
