"""How pixels are scaled: before the user's own networks too, as the weights were trained, and what it costs if not."""

import keras
import numpy as np
import pytest
from conftest import HELPERS, run_jobs, summary

from launch.export import main as export
from launch.job.config import TrainConfig
from launch.job.user.network import build_network
from launch.job.weights import pixels
from launch.job.weights.stored import WeightsError
from launch.trained.load import load_run
from models import PIXELS, ModelError, applications

UNSCALED = f"{HELPERS / 'own_network.py'}:unscaled"
LINE = (
    f"--dataset npz --global-batch-size 12 --epochs 4 --optimizer adam --learning-rate 0.003 --warmup-epochs 0 "
    f"--model {UNSCALED}"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_data):
    """Trained on Caffe's pixels; and what goes on from there, or begins with these weights."""
    folder = tmp_path_factory.mktemp("runs")
    line = [*LINE.split(), "--data-dir", tiny_data]
    lines = {"caffe": [*line, "--pixels", "caffe"], "kept": line, "other": [*line, "--pixels", "torch"]}
    lines["wrong"] = [*lines["other"], "--weights", folder / "caffe"]
    plants = {name: [["cut", "caffe", 48]] for name in ("kept", "other")}
    codes = run_jobs(folder, lines, plants=plants)
    assert codes == {"caffe": 0, "kept": 0, "other": 2, "wrong": 2}
    return folder


def said(folder, job):
    return (folder / "errors.txt").read_text().partition(f"job: {job}\n")[2].partition("job: ")[0]


def test_weights_of_other_pixels_are_refused(runs):
    where = f"error: --weights {runs / 'caffe'} were"
    assert said(runs, "wrong") == f"{where} trained on pixels caffe, this run has torch; give --pixels caffe\n"


def test_a_run_goes_on_with_its_pixels(runs):
    assert summary(runs / "kept")["weights_sha256"] == summary(runs / "caffe")["weights_sha256"]
    assert "was trained on pixels caffe, this run has torch; give --pixels caffe, or begin anew" in said(runs, "other")
    assert "note: pixels are scaled as caffe, as those were" in (runs / "output.txt").read_text()


def test_what_other_pixels_cost(runs, tiny_data):
    """The same weights behind pixels that they were not trained on: each way is worse, also where classes are found."""
    trained = load_run(runs / "caffe", logits=True).network
    with np.load(tiny_data) as arrays:
        images, labels = arrays["x_val"], arrays["y_val"]
    measured = {}
    for way in PIXELS:
        network = build_network(unscaled(), 7, 16, way)
        network.set_weights(trained.get_weights())
        logits = network(images)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
        measured[way] = float((np.argmax(logits, 1) == labels).mean()), float(loss)
    accuracy, loss = measured.pop("caffe")
    assert accuracy > 0.99 and loss < 0.01
    assert min(accuracy for accuracy, _ in measured.values()) < 0.8
    assert all(loss > 0.3 for _, loss in measured.values()), measured


@pytest.mark.faults
@pytest.mark.parametrize("form", ("tflite", "weights"))
def test_an_export_scales_pixels_too(runs, tiny_data, capsys, form):
    assert export([str(runs / "caffe"), "--format", form]) == 0
    with np.load(tiny_data) as arrays:
        names = {"pixels": arrays["x_val"][:9]}
    lines = capsys.readouterr().out.splitlines()[1:]
    exec("\n".join(line.strip() for line in lines), names)
    expected = load_run(runs / "caffe", logits=form == "weights").network(names["pixels"])
    found = names["logits" if form == "weights" else "probabilities"]
    assert np.abs(found - expected).max() <= 1e-4 and np.ptp(expected) > 0.1


def unscaled():
    from own_network import unscaled

    return unscaled


@pytest.mark.parametrize("way", PIXELS)
def test_layers_of_an_own_network_follow_the_scaling_in_one_graph(way):
    plain, network = build_network(unscaled(), 7, 16), build_network(unscaled(), 7, 16, way)
    assert network.inputs[0].dtype == "uint8"
    assert [weight.path for weight in network.weights] == [weight.path for weight in plain.weights]
    network.set_weights(plain.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    modes = {"scaled": lambda x: x / 255}
    expected = modes.get(way, lambda x: keras.applications.imagenet_utils.preprocess_input(x, mode=way))
    np.testing.assert_allclose(network(images), plain(expected(images.astype(np.float32))), rtol=1e-4, atol=1e-4)


def test_a_network_that_takes_whole_numbers_scales_them_itself():
    def network(classes, size):
        images = keras.Input((size, size, 3), dtype="uint8")
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
        return keras.Model(images, keras.layers.Dense(classes)(x))

    assert build_network(network, 7, 16)
    with pytest.raises(ModelError, match="of uint8 images, which scales them itself, but --pixels tf does so in front"):
        build_network(network, 7, 16, "tf")


@pytest.mark.parametrize(
    ("name", "way"), (("VGG16", "caffe"), ("MobileNet", "tf"), ("DenseNet121", "torch"), ("EfficientNetB0", None))
)
def test_what_keras_networks_make_of_pixels_has_a_name(name, way):
    assert applications.pixels(name) == way


VGG, KERAS, OWN = {"model": "vgg16"}, {"model": "keras:VGG16"}, {"model": UNSCALED}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    (
        (VGG | {"pixels": "caffe"}, VGG, "caffe"),
        (VGG, VGG, None),
        (KERAS, VGG, "caffe"),
        (KERAS, VGG | {"pixels": "tf"}, "were trained on pixels caffe, this run has tf; give --pixels caffe"),
        (VGG, KERAS, "were trained on pixels tf, this run has caffe; use another network"),
        (KERAS, KERAS, None),
        (OWN, VGG, None),
        (OWN | {"pixels": "torch"}, VGG | {"pixels": "tf"}, "were trained on pixels torch, this run has tf"),
        (VGG, OWN, None),
        (VGG, OWN | {"pixels": "tf"}, "tf"),
    ),
)
def test_weights_that_carry_a_record_set_pixels_or_are_refused(before, now, expected):
    given = TrainConfig(**now, weights="run"), now["model"] == UNSCALED
    found = TrainConfig(**before), before["model"] == UNSCALED
    if expected and " " in expected:
        with pytest.raises(WeightsError, match=expected):
            pixels.of_weights(*given, *found)
    else:
        assert pixels.of_weights(*given, *found) == expected
