"""A trained network's answers are the same on any number of workers: every byte of every file of an evaluation and a
prediction; and both see the same."""

import csv
import json

import pytest
import trained
from conftest import BIN, ROOT, run_command, summary
from PIL import Image

WORKERS = {
    "two": (("horovodrun", "-np", "2"), ()),
    "three": (("horovodrun", "-np", "3"), ()),
    "mirrored": ((), ("--strategy", "mirrored", "--cpu-devices", "2")),
    "four": (("horovodrun", "-np", "4"), ()),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trained.train(tmp_path_factory.mktemp("answers"), "photos", "two", "half", "own")


def answered(folder, name, launcher=(), flags=()):
    """Evaluate and predict on some workers: everything they leave lies in ``folder / "on NAME"``."""
    out = folder / f"on {name}"
    unreadable = folder / "unreadable.jpg"
    unreadable.write_text("no picture")
    val = ("--split", "val", "--checkpoint", "last", *flags, "--out")
    return trained.run_programs(
        out,
        {
            "photos": ["evaluate", folder / "photos", "--check-leakage", "on", *flags, "--out", out / "photos"],
            "validation": ["evaluate", folder / "photos", *val, out / "validation"],
            "two": ["evaluate", folder / "two", *val, out / "two"],
            "half": ["evaluate", folder / "half", *val, out / "half"],
            "own": ["evaluate", folder / "own", *val, out / "own"],
            "csv": ["predict", folder / "photos", unreadable, folder / "pictures/test", *flags, "--out", out / "p.csv"],
            "json": [
                *("predict", folder / "photos", "-", "--top", 2, *flags),
                *("--out", out / "p.json", "--sheet", out / "p.png"),
            ],
            "console": ["predict", folder / "photos", folder / "pictures/val", *flags],
        },
        *launcher,
        stdin={"json": f"{unreadable}\n{folder / 'pictures/val'}\n"},
    )


@pytest.fixture(scope="module")
def one(folder):
    """All of it on one process."""
    programs = answered(folder, "one")
    assert programs.codes == dict.fromkeys(("photos", "validation", "two", "half", "own", "console"), 0) | {
        "csv": 2,
        "json": 2,
    }
    return programs


def left(programs) -> dict[str, bytes]:
    """Every file that the programs have left, and what predict printed."""
    ours = ("programs.json", "codes.json")
    files = [path for path in programs.folder.rglob("*") if path.is_file() and path.name not in ours]
    files = [path for path in files if path.suffix not in (".out", ".err") or path.name == "console.out"]
    return {str(path.relative_to(programs.folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "workers", [pytest.param(name, marks=pytest.mark.thorough if name in ("three", "four") else ()) for name in WORKERS]
)
def test_every_file_is_the_same_on_any_workers(folder, one, workers):
    programs, expected = answered(folder, workers, *WORKERS[workers]), left(one)
    assert programs.codes == one.codes
    assert {"photos/leakage.csv", "p.png", "p.csv", "p.json", "console.out", "half/confusion.png"} <= expected.keys()
    found = left(programs)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert "1,003 of 1,003 pictures evaluated" in programs.out("photos")
    assert "1,003 of 1,004 pictures, " in programs.err("csv")
    assert [programs.err("csv").count("error: ")] == [1]


@pytest.mark.parametrize("run", ["validation", "two", "half", "own"])
def test_loss_and_metrics_are_those_of_trainings_last_validation(folder, one, run):
    said = json.loads((one.folder / run / "metrics.json").read_text())
    last = summary(folder / ("photos" if run == "validation" else run))["final"]
    names = [name for name in last if name.startswith("val_")]
    assert len(names) >= 2
    assert {name: said["training_metrics"][name.removeprefix("val_")] for name in names} == {
        name: last[name] for name in names
    }
    assert said["loss"] == pytest.approx(last["val_loss"], rel=1e-6) and said["examples"] == (
        31 if run == "validation" else 23
    )


def test_predict_and_evaluate_say_the_same_of_the_same_pictures(one):
    def probabilities(path):
        with open(path, newline="") as file:
            rows = csv.DictReader(file)
            best = [name for name in rows.fieldnames if name.startswith("top")]
            return {row["path"]: [row[name] for name in best] for row in rows}

    evaluated, predicted = probabilities(one.folder / "photos/predictions.csv"), probabilities(one.folder / "p.csv")
    assert len(evaluated) == 1003 and predicted.keys() - evaluated.keys() == {str(one.folder.parent / "unreadable.jpg")}
    assert [path for path in evaluated if evaluated[path] != predicted[path]] == []


def test_hosts_with_other_pictures_of_the_same_names_are_refused(folder, tmp_path):
    """Each rank is in a folder of its own, as if on a host of its own."""
    for rank, size in enumerate((30, 31)):
        (tmp_path / str(rank)).mkdir()
        Image.new("RGB", (size, 30)).save(tmp_path / str(rank) / "one.bmp")
    program = f"{BIN}/python {ROOT}/launch/predict.py {folder}/photos one.bmp --out {tmp_path}/p.csv"
    done = run_command("horovodrun", "-np", 2, "bash", "-c", f"cd {tmp_path}/$OMPI_COMM_WORLD_RANK; exec {program}")
    assert done.returncode == 2 and not (tmp_path / "p.csv").exists(), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert "has one.bmp with 2," in line and "expected the same data on all hosts" in line


def test_a_picture_of_an_evaluated_split_that_cannot_be_read_ends_all_ranks(folder, tmp_path):
    """One rank finds it, while the others wait: all end, and it is named once."""
    bad = tmp_path / "data" / "owl" / "bad.jpg"
    for name in trained.NAMES:
        (tmp_path / "data" / name).mkdir(parents=True)
        for path in sorted((folder / "pictures/val" / name).iterdir())[:9]:
            (tmp_path / "data" / name / path.name).write_bytes(path.read_bytes())
    bad.write_bytes((folder / "pictures/val/owl/0005.jpg").read_bytes()[:-40])
    words = [BIN / "python", ROOT / "launch/evaluate.py", folder / "photos", "--data-dir", tmp_path / "data"]
    done = run_command("horovodrun", "-np", 2, *words, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1 and f"{bad}: " in errors[0] and "replace or remove it" in errors[0]
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
