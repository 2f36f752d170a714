"""Every format, loaded by the printed lines in a process that has no Lockstep, answers as the run does."""

import json
import re
import shutil
import subprocess
import sys
import zipfile

import exported
import keras
import numpy as np
import pytest
from conftest import HELPERS, ROOT, environment, run_jobs

from launch.export import FORMATS, main
from launch.trained.load import load_run

FILE = HELPERS / "exported.py"
PRECISIONS = ("float32", "bfloat16", "float16")
NAMES = {"keras": "model.keras", "weights": "model.weights.h5", "savedmodel": "saved_model"}
NAMES |= {"onnx": "model.onnx", "tflite": "model.tflite"}


def needs_packages(form):
    """ONNX is an optional group of packages."""
    if form == "onnx":
        pytest.importorskip("tf2onnx", reason="make setup EXPORT=1 has not been asked for")
        pytest.importorskip("onnxruntime", reason="make setup EXPORT=1 has not been asked for")


def train(folder, networks, classes, precisions):
    """Runs of two steps each: folder/NAME-CLASSES-PRECISION."""
    jobs = {}
    for network, size in networks.items():
        for count in classes:
            data = exported.write_data(folder, count, size)
            line = [*exported.LINE.split(), size, "--dataset", "npz", "--data-dir", data, "--model", network]
            for precision in precisions:
                jobs[f"{network.rpartition(':')[2]}-{count}-{precision}"] = [*line, "--precision", precision]
    assert set(run_jobs(folder, jobs).values()) == {0}, (folder / "output.txt").read_text()[-3000:]
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of the user's, of everything that is hard to export, with two classes, in 16 bits."""
    return train(tmp_path_factory.mktemp("runs"), {f"{FILE}:build": 32}, (2,), ("bfloat16",))


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(5).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)


def load_as_printed(text, pixels, folder, *paths):
    """The answers of the printed lines, in a process that finds neither Lockstep nor anything that it has set."""
    lines = "\n".join(line.strip() for line in text.splitlines()[1:])
    np.save(folder / "pixels.npy", pixels)
    program = f"""
import sys
import numpy as np
sys.path = {[str(path) for path in paths]} + [path for path in sys.path if path != {str(ROOT)!r}]
pixels = np.load("pixels.npy")
{lines}
np.save("answers.npy", np.asarray(probabilities if "probabilities" in vars() else logits))
assert "launch" not in sys.modules
"""
    kept = {name: value for name, value in environment().items() if not name.startswith(("PYTHON", "KERAS"))}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(folder / "answers.npy")


@pytest.mark.parametrize("form", FORMATS)
def test_the_printed_lines_give_the_run_s_answers(form, folder, pixels, tmp_path, capsys):
    needs_packages(form)
    run = folder / "build-2-bfloat16"
    assert main([str(run), "--format", form]) == 0
    said = capsys.readouterr().out
    assert f"{run / NAMES[form]}: " in said and "on 32 validation pictures" in said
    answers = load_as_printed(said, pixels, tmp_path, *([HELPERS] if form == "weights" else []))
    network, record = load_run(run, precision="float32", logits=form == "weights")
    expected = network.predict(pixels, verbose=0)
    assert answers.shape == (5, 1 if form == "weights" else 2) and answers.dtype == np.float32
    assert np.abs(answers - expected).max() <= (1e-4 if form in ("onnx", "tflite") else 1e-5)
    if form != "weights":
        assert np.abs(answers.sum(axis=1) - 1).max() < 1e-6 and np.ptp(answers[:, 0]) > 1e-4
    assert not list(run.glob(".*exporting"))
    assert list(record.classes) == labels(form, run / NAMES[form])["classes"]
    outputs = labels(form, run / NAMES[form])["outputs"]
    assert outputs == (record.outputs if form == "weights" else "probabilities, one per class")


def labels(form, path):
    """The record as those find it who have the export alone."""
    if form == "savedmodel":
        return json.loads((path / "assets" / "labels.json").read_text())
    if form == "onnx":
        import onnx

        return json.loads({entry.key: entry.value for entry in onnx.load(path).metadata_props}["labels.json"])
    return json.loads(path.with_name(f"{path.name}.labels.json").read_text())


def test_a_keras_file_names_keras_own_layers_alone_and_no_dropout(folder, capsys):
    run = folder / "build-2-bfloat16"
    assert main([str(run), "--format", "keras", "--out", str(folder / "plain.keras")]) == 0
    config = zipfile.ZipFile(folder / "plain.keras").read("config.json").decode()
    modules = set(re.findall(r'"module": "([^"]*)"', config))
    assert {module.partition(".")[0] for module in modules} == {"keras"}
    assert "Dropout" not in config and "float16" not in config and '"registered_name": "lockstep' not in config
    assert '"batch_shape": [null, 32, 32, 3], "dtype": "uint8"' in config


def test_a_layer_of_the_user_s_is_named_with_how_to_load_it(tmp_path, pixels, capsys):
    own = tmp_path / "net"
    own.mkdir()
    shutil.copy(FILE, own)
    train(tmp_path, {f"{own / 'exported.py'}:own_layer": 32}, (10,), ("float32",))
    run = tmp_path / "own_layer-10-float32"
    assert main([str(run), "--format", "keras"]) == 0
    said = capsys.readouterr().out
    assert "import keras, exported  # it has layers of your own" in said
    answers = load_as_printed(said, pixels, tmp_path, own)
    assert np.abs(answers - load_run(run).network.predict(pixels, verbose=0)).max() <= 1e-5


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A network of keras.applications, in front of which Lockstep puts its preprocessing."""
    return train(tmp_path_factory.mktemp("library"), {"keras:MobileNet": 32}, (10,), ("float32",))


@pytest.mark.faults
@pytest.mark.parametrize("form", FORMATS)
def test_a_network_of_keras_applications_takes_its_preprocessing_along(form, library, pixels, tmp_path, capsys):
    """The library's own network, which gets what its own ``preprocess_input`` makes of pixels, answers the same."""
    needs_packages(form)
    run = library / "MobileNet-10-float32"
    assert main([str(run), "--format", form]) == 0, capsys.readouterr().err
    # Weights alone need the function that builds their network.
    answers = load_as_printed(capsys.readouterr().out, pixels, tmp_path, *([ROOT] if form == "weights" else []))
    ends = None if form == "weights" else "softmax"
    shape = {"input_shape": (32, 32, 3), "classes": 10}
    theirs = keras.applications.MobileNet(weights=None, classifier_activation=ends, **shape)
    theirs.set_weights(load_run(run).network.get_weights())
    expected = theirs.predict(keras.applications.mobilenet.preprocess_input(pixels.astype("float32")), verbose=0)
    assert np.abs(answers - expected).max() <= 1e-6 and np.ptp(expected) > 1e-4


NETWORKS = {"alexnet": 67, "alexnet_2012": 67, "vgg16": 32, "keras:MobileNetV3Small": 32}
NETWORKS |= {f"{FILE}:build": 32, f"{FILE}:sequential": 32}


@pytest.mark.thorough
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.rpartition(":")[2])
def test_every_export_agrees_with_its_run(network, tmp_path, capsys):
    train(tmp_path, {network: NETWORKS[network]}, (2, 10), PRECISIONS)
    for run in sorted(tmp_path.glob("*float*")):
        for form in FORMATS:
            needs_packages(form)
            assert main([str(run), "--format", form]) == 0, capsys.readouterr().err
            allowed = 1e-4 if form in ("onnx", "tflite") else 1e-5
            assert float(re.search(r"at most (\S+) ", capsys.readouterr().out)[1]) <= allowed
        shutil.rmtree(run)
