"""The entry scripts and launchers, as a user types them, and what they print."""

import json
import sys

import numpy as np
import pytest
from conftest import BIN, ROOT, run_command, summary

TRAIN = (sys.executable, ROOT / "launch" / "train.py")


def folder_of_pictures(folder, pattern, kept):
    """Training and validation pictures of two classes, and those of a pattern cut to a part of their bytes."""
    import tensorflow as tf

    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (folder / name).mkdir(parents=True)
        for index in range(20):
            pixels = np.random.default_rng(index).integers(0, 255, (32, 32, 3), np.uint8)
            tf.io.write_file(str(folder / name / f"{index}.jpg"), tf.io.encode_jpeg(pixels))
    victims = list(folder.glob(pattern))
    for victim in victims:
        content = victim.read_bytes()
        victim.write_bytes(content[: int(kept * len(content))])
    return victims


def named_in(text, victims):
    return [victim for victim in victims for _ in range(text.count(f"{victim}: "))]


@pytest.mark.parametrize(
    ("pattern", "launcher"),
    (("train/dog/7.jpg", ("horovodrun", "-np", 2)), ("train/dog/*.jpg", ("horovodrun", "-np", 2)), ("val/*/7.jpg", ())),
)
def test_a_picture_cut_in_its_pixels_is_named(tmp_path, pattern, launcher):
    """Unreadable files, perhaps on both ranks at once, end all with exit code 2, and one message names them all."""
    victims = folder_of_pictures(tmp_path / "images", pattern, 0.7)
    line = ("--dataset", "image_folder", "--data-dir", tmp_path / "images", "--image-size", 16, "--batch-size", 4)
    done = run_command(*launcher, *TRAIN, *line, "--epochs", 1, "--run-dir", tmp_path / "run")
    assert done.returncode == 2, done.stdout + done.stderr
    assert named_in(done.stderr, victims) == victims and "Traceback" not in done.stderr, done.stderr


def test_all_files_that_cannot_be_pictures_are_named_before_the_first_step(tmp_path):
    victims = folder_of_pictures(tmp_path / "images", "*/dog/?.jpg", 0.1)
    line = ("--dataset", "image_folder", "--data-dir", tmp_path / "images", "--image-size", 16, "--batch-size", 4)
    done = run_command("horovodrun", "-np", 2, *TRAIN, *line, "--run-dir", tmp_path / "run")
    assert done.returncode == 2 and "20 of 80 files cannot be pictures" in done.stderr, done.stderr
    assert named_in(done.stderr, victims) == victims and not (tmp_path / "run").exists()


def test_quiet_by_default_and_chief_alone_speaks(tmp_path, tiny_data):
    """Nothing of TensorFlow's or Open MPI's reaches the user, and every line is said once."""
    line = ("--dataset", "npz", "--data-dir", tiny_data, "--steps-per-epoch", 2, "--epochs", 1, "--batch-size", 8)
    line += ("--run-dir", tmp_path / "run")
    done = run_command("horovodrun", "-np", 2, *TRAIN, *line)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.strip() == ""
    lines = [text.partition(">:")[2] or text for text in done.stdout.splitlines()]
    # On a busy machine a rank may truly have kept the other waiting, which is said once per epoch.
    slow = [text for text in lines if "; the other waited " in text]
    lines = [text for text in lines if text not in slow]
    assert len(slow) <= 1
    starts = (
        "model:",
        "workers:",
        "data:",
        "classes:",
        "batch:",
        "exchange:",
        "run directory:",
        "started in",
        "epoch 1/1",
        "best:",
        "finished",
        "curves:",
        "look at it:",
    )
    assert [text.startswith(start) for text, start in zip(lines, starts, strict=True)] == [True] * len(starts), (
        done.stdout
    )


def test_mirrored_script(tmp_path, tiny_data):
    script = ROOT / "launch" / "train_mirrored.py"
    line = ("--cpu-devices", 2, "--steps-per-epoch", 2, "--epochs", 1, "--batch-size", 4, "--run-dir", tmp_path / "run")
    line += ("--dataset", "npz", "--data-dir", tiny_data)
    done = run_command(sys.executable, script, *line)
    assert done.returncode == 0, done.stderr
    facts = summary(tmp_path / "run")
    assert (facts["strategy"], facts["replicas"], facts["world_size"]) == ("mirrored", 2, 1)


def test_interpreter_is_the_environments():
    """The launchers on PATH in these tests are those of the environment that runs them."""
    assert json.loads(run_command("python", "-c", "import json, sys; print(json.dumps(sys.prefix))").stdout) == str(
        BIN.parent
    )
