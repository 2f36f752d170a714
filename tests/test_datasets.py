"""Whole runs of two ranks on files: folders of images, and shards and lists made of them."""

import sys

import numpy as np
import pytest
from conftest import ROOT, run_command, run_jobs, summary

LINE = "--image-size 16 --batch-size 6 --epochs 2 --augment inception --deterministic --learning-rate 0.01".split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the runs ``image_folder``, ``tfrecord`` and ``csv``, all of the same images."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("datasets")
    lines, random = [], np.random.default_rng(0)
    for label in range(3):
        (folder / "images" / f"class{label}").mkdir(parents=True)
        for index in range(30):
            path = folder / "images" / f"class{label}" / f"{index:02}.jpg"
            pixels = random.integers(0, 120, (20, 24, 3)) + 60 * label
            path.write_bytes(tf.io.encode_jpeg(tf.cast(pixels, tf.uint8)).numpy())
            lines.append(f"{path},class{label}")
    (folder / "list.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    prepare = ("--dataset", "image_folder", "--data-dir", folder / "images", "--out", folder / "shards", "--shards", 3)
    done = run_command(sys.executable, ROOT / "launch" / "prepare.py", *prepare)
    assert (done.returncode, done.stderr) == (0, "")
    places = {"image_folder": folder / "images", "tfrecord": folder / "shards", "csv": folder / "list.csv"}
    jobs = {name: [*LINE, "--dataset", name, "--data-dir", place] for name, place in places.items()}
    assert run_jobs(folder, jobs, "horovodrun", "-np", "2") == dict.fromkeys(jobs, 0)
    return folder


@pytest.mark.parametrize("name", ("tfrecord", "csv"))
def test_the_same_images_train_the_same_network_however_they_are_stored(trained, name):
    files, folders = summary(trained / name), summary(trained / "image_folder")
    assert files["validation_examples"] == folders["validation_examples"] == 9
    assert files["weights_sha256"] == folders["weights_sha256"] and files["final"] == folders["final"]
