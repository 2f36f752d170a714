"""Files that are bad, gone or new: named before the first step, and a run goes on with them or without."""

import json
import shutil

import numpy as np
import pytest
from conftest import run_jobs, summary
from PIL import Image
from safetensors.numpy import load_file
from trained import change_state

from data import DatasetConfig, file_names, load
from data.datasets import DataError
from data.order import Order
from launch.trained.load import find

LINE = "--dataset image_folder --image-size 16 --batch-size 4 --epochs 2 --learning-rate 0.01 --validation-split 0"
NAMES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """26 training and 5 validation pictures of three classes: 6 steps of 4, so that one picture may go."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 26), ("val", 5)):
        for index in range(count):
            path = folder / split / NAMES[index % 3] / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return folder


def test_files_that_cannot_be_pictures_are_left_out_as_if_they_were_not_there(pictures, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "some")
    clean = load(DatasetConfig("image_folder", str(folder), seed=0, validation_split=0))
    for place in ("train/cat/empty.jpg", "train/dog/99.jpg", "val/owl/page.jpg"):
        (folder / place).write_bytes(b"<html></html>" if "page" in place else b"")
    (folder / "train/owl/link.jpg").symlink_to(folder / "nowhere")
    with pytest.raises(DataError, match="4 of 35 files cannot be pictures, more than the 3 of --skip-unreadable"):
        load(DatasetConfig("image_folder", str(folder), seed=0, validation_split=0, skip_unreadable=3))
    kept = load(DatasetConfig("image_folder", str(folder), seed=0, validation_split=0, skip_unreadable=4))
    assert [source.fingerprint() for source in kept] == [source.fingerprint() for source in clean]
    assert [source.paths for source in kept] == [source.paths for source in clean]
    assert kept.train.note.startswith("4 left out by --skip-unreadable:")
    for name in ("empty.jpg: is empty", "99.jpg: is empty", "page.jpg: is a web page", "link.jpg: cannot be read"):
        assert name in kept.train.note
    for file in (folder / "train/owl").glob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="class owl has no file that can be a picture"):
        load(DatasetConfig("image_folder", str(folder), seed=0, validation_split=0, skip_unreadable=99))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pictures):
    """Each run is begun with the pictures, and gone on with after something has happened to them."""
    folder = tmp_path_factory.mktemp("runs")
    names = ("refused", "accepted", "validation", "validation-refused", "more", "fewer", "older")
    names += ("renamed", "swapped", "added", "added-refused")
    line = [*LINE.split(), "--early-stopping-patience", "9"]
    begun = [*line, "--data-dir", folder / "begun"]
    shutil.copytree(pictures, folder / "begun")
    pixels, labels = np.random.default_rng(0).integers(0, 256, (25, 32, 32, 3), np.uint8), np.arange(25) % 3
    np.savez(folder / "arrays.npz", x_train=pixels, y_train=labels)
    arrays = [*line, *"--dataset npz --steps-per-epoch 5 --validation-split 0.2".split()]
    arrays += ["--data-dir", folder / "arrays.npz"]
    assert run_jobs(folder, {"begun-run": begun, "arrays": arrays}) == {"begun-run": 0, "arrays": 0}
    np.savez(folder / "arrays.npz", x_train=pixels[:-1], y_train=labels[:-1])
    jobs = {"arrays": [*arrays, "--epochs", "3", "--data-changed", "accept"]}
    for name in names:
        data = shutil.copytree(pictures, folder / f"data-{name}")
        run = shutil.copytree(folder / "begun-run", folder / name, symlinks=True)
        accept = [] if name.endswith("refused") else ["--data-changed", "accept"]
        jobs[name] = [*line, "--epochs", "3", "--data-dir", data, "--run-dir", run, *accept]
        if name in ("refused", "accepted", "older"):
            (data / "train/cat/03.png").unlink()
        if name.startswith("validation"):
            shutil.copy(data / "train/dog/04.png", data / "val/dog/44.png")
        if name == "renamed":
            for split in ("train", "val"):
                (data / split / "cat").rename(data / split / "feline")
        if name == "swapped":
            jobs[name] += ["--classes", "dog,cat,owl"]
        if name.startswith("added"):
            shutil.copytree(data / "train/owl", data / "train/ape")
        if name == "more":
            for index in range(4):
                shutil.copy(data / f"train/owl/{2 + 3 * index:02}.png", data / f"train/owl/9{index}.png")
        if name == "fewer":
            for index in range(4):
                (data / f"train/owl/{2 + 3 * index:02}.png").unlink()
    for checkpoint in (folder / "older" / "checkpoints").glob("step-*"):
        change_state(checkpoint, lambda state: state.pop("data"))
    return folder, run_jobs(folder, jobs), (folder / "output.txt").read_text()


def test_a_run_refuses_other_data_and_says_what_differs(runs):
    folder, codes, output = runs
    changed = {"refused": 2, "accepted": 0, "validation": 0, "validation-refused": 2}
    assert codes == changed | {"more": 2, "fewer": 0, "older": 0, "arrays": 0} | dict.fromkeys(
        ("renamed", "swapped", "added", "added-refused"), 2
    )
    assert "was made with other data: training: 1 file fewer: train/cat/03.png, cat 9 -> 8; bring that back" in output
    assert summary(folder / "refused")["epochs"] == 2


def test_accepted_it_goes_on_and_says_from_where_on(runs):
    folder, _, output = runs
    assert "the data has changed, from epoch 3 on: training: 1 file fewer: train/cat/03.png, cat 9 -> 8" in output
    assert summary(folder / "accepted")["epochs"] == 3
    state = json.loads((folder / "accepted/checkpoints/last/state.json").read_text())
    assert state["data"]["train"]["counts"] == {"cat": 8, "dog": 9, "owl": 8}
    # One of before knows hashes alone.
    assert "from epoch 3 on: training: SHA-256 was" in output and summary(folder / "older")["epochs"] == 3


def test_validation_that_changed_begins_its_decisions_anew(runs):
    folder, _, output = runs
    assert "validation: 1 file more: val/dog/44.png, dog 2 -> 3" in output
    assert "was made with other data: validation: 1 file more: val/dog/44.png, dog 2 -> 3; bring that back" in output
    assert output.count("validation has changed: best, patience and plateau begin anew") == 2  # and of arrays
    state = json.loads((folder / "validation/checkpoints/last/state.json").read_text())
    assert state["decisions"]["best_epoch"] == 2 and state["decisions"]["stop_wait"] <= 1
    assert summary(folder / "validation")["validation_examples"] == 6


def test_where_examples_have_no_names_it_says_that_validation_is_drawn_anew(runs):
    (said,) = [line for line in runs[2].splitlines() if "drawn anew" in line]
    assert "training: 0 7 -> 6; validation: other contents; validation is drawn anew, also from what was" in said


def test_other_epochs_are_refused_with_the_remedy(runs):
    _, _, output = runs
    assert "was made with steps per epoch 6, this run has 7; use --steps-per-epoch 6, or begin anew" in output


def test_an_epoch_keeps_its_steps_where_too_few_pictures_are_left(runs):
    folder, _, output = runs
    assert "an epoch keeps its 6 steps, which take 24 of the 22 training examples: its first 2 come again" in output
    assert summary(folder / "fewer")["steps"] == 18
    for examples, batch, replicas in ((22, 4, 1), (22, 2, 2), (22, 1, 4), (5, 2, 2)):
        order = Order(examples=examples, seed=3, replica_batch=batch, replicas=replicas, fill=6)
        elements = range(6 * replicas, 12 * replicas)  # the second epoch
        dealt = np.concatenate([order.indices(element)[1] for element in elements])
        assert order.steps_per_epoch == 6 and set(dealt) == set(range(examples))
        np.testing.assert_array_equal(dealt, np.resize(dealt[:examples], 24))


def weights(run):
    return load_file(run / "checkpoints/last/weights.safetensors")


def names(splits):
    return [set(file_names(source)) for source in splits]


@pytest.fixture(scope="module")
def dealt(tmp_path_factory, pictures):
    """Runs that hold out a third of one folder, from which pictures go and to which others come: on one process, and
    on two from the same checkpoint; and each gone on with once more without the flag."""
    folder = tmp_path_factory.mktemp("dealt")
    shutil.copytree(pictures / "train", folder / "data")
    exact = "--deterministic --global-batch-size 4 --micro-batch-size 1"
    line = LINE.replace("--batch-size 4", exact).replace("split 0", "split 0.34").split()
    line += ["--data-dir", folder / "data"]
    assert run_jobs(folder, {"begun": line}) == {"begun": 0}
    before = names(load(find(folder / "begun").dataset(str(folder / "data"))))
    # 17 - 3 + 1 training examples: less than 4 steps of 4.
    gone = [set(sorted(before[0])[:3]), {min(before[1])}]
    for name in set.union(*gone):
        (folder / "data" / name).unlink()
    shutil.copy(folder / "data" / max(before[0]), folder / "data/cat/001.png")
    for name in ("one", "two"):
        shutil.copytree(folder / "begun", folder / name, symlinks=True)
    for launcher, name in (((), "one"), (("horovodrun", "-np", "2"), "two")):
        jobs = {f"{name}-3": [*line, "--epochs", 3, "--data-changed", "accept"], f"{name}-4": [*line, "--epochs", 4]}
        jobs = {job: [*words, "--run-dir", folder / name] for job, words in jobs.items()}
        if name == "one":
            refused = [*line, "--epochs", 3, "--run-dir", folder / name]
            jobs = {"refused": refused} | jobs
            jobs["elsewhere"] = [*line, "--epochs", 5, "--resume", folder / name, "--run-dir", folder / "elsewhere"]
        codes = dict.fromkeys(jobs, 0) | ({"refused": 2} if name == "one" else {})
        assert run_jobs(folder / f"jobs-{name}", jobs, *launcher) == codes
    return folder, before, gone


@pytest.mark.faults
def test_what_was_held_out_stays_held_out(dealt):
    folder, (trained, validated), gone = dealt
    for run in ("one", "two", "elsewhere"):
        now = load(find(folder / run).dataset(str(folder / "data")))  # as evaluate.py opens it
        assert names(now) == [trained - gone[0] | {"cat/001.png"}, validated - gone[1]]
        state = json.loads((folder / run / "checkpoints/last/state.json").read_text())
        assert state["data"]["train"]["sha256"] == now.train.fingerprint()
        assert state["data"]["val"]["sha256"] == now.validation.fingerprint()
    for run in ("one", "two"):
        output = (folder / f"jobs-{run}" / "output.txt").read_text()
        assert output.count("the data has changed, from epoch 3 on") == 1 and "trained on before" not in output
    assert not (folder / "begun" / "held_out.json").exists()
    # Refused, it says what accepting it will do.
    errors = (folder / "jobs-one" / "errors.txt").read_text()
    assert "training: 3 files fewer" in errors and "1 file more: cat/001.png" in errors
    assert f"validation: 1 file fewer: {min(validated)}" in errors and "trained on before" not in errors


@pytest.mark.faults
def test_accepted_it_ends_with_the_same_bits_on_any_number_of_workers(dealt):
    folder, _, _ = dealt
    one, two = weights(folder / "one"), weights(folder / "two")
    assert one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)
    assert summary(folder / "one")["steps"] == summary(folder / "two")["steps"] == 16


def test_other_classes_are_refused_also_where_other_data_are_accepted(runs):
    _, _, output = runs
    for said in (
        "has dog, feline, owl ('cat' gone, 'feline' new), and its weights would name the wrong ones; "
        "give 'cat' back, by that name, or begin a new run",
        "classes cat, dog, owl, this run has dog, cat, owl (in another order), and its weights would name the wrong "
        "ones; go on with --classes cat,dog,owl, or begin a new run",
        "has ape, cat, dog, owl ('ape' new), and its weights would name the wrong ones; go on with --classes "
        "cat,dog,owl, or begin",
        "go on with --classes cat,dog,owl, and --data-changed accept, or begin",
    ):
        assert output.count(said) == 1, said
