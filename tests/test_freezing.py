"""Frozen layers stay as they are, thaw when they are told to, and a run goes on from either side of that border."""

import sys
import textwrap
from types import SimpleNamespace

import jobs
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import run_jobs, summary
from parity import history
from safetensors.numpy import load_file

from distributed.layers.convert import convert
from launch.job.config import ConfigError, TrainConfig
from launch.job.features import choose, store
from launch.job.features.cut import cut
from launch.job.preparation import freezing
from launch.job.user.code import load_function

# 16 steps per epoch; the first two train the head alone, on features, the others conv2 as well.
LINE = (
    "--dataset npz --global-batch-size 12 --epochs 4 --learning-rate 0.002 --warmup-epochs 0 --dropout 0.5 "
    "--deterministic --optimizer adam --freeze base --cache-features on --unfreeze-epoch 3 --unfreeze conv2 "
    "--checkpoint-every-steps 5 --keep-checkpoints 99"
)
# Two augmented views of each picture, kept for four epochs, and four views.
VIEWS = (
    "--dataset npz --global-batch-size 12 --epochs 4 --learning-rate 0.002 --warmup-epochs 0 --dropout 0.5 "
    "--deterministic --optimizer adam --freeze base --augment flip_crop --keep-checkpoints 99 "
)
CUTS = {20: "while all are frozen", 32: "at the border", 40: "once one has thawed"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_data):
    """The folder of the run ``whole``, and of one per cut that goes on from there, named by its step."""
    folder = tmp_path_factory.mktemp("runs")
    line, views = ([*words.split(), "--data-dir", tiny_data] for words in (LINE, VIEWS))
    lines = {"whole": line} | {str(step): line for step in CUTS}
    lines |= {"views": [*views, "--cache-views", 2], "endless": [*views, "--cache-features", "off"]}
    # With the features of "views", and in the middle of an epoch.
    lines["other rate"] = [*lines["views"], "--learning-rate", 0.001, "--features-dir", folder / "views" / "features"]
    lines["other factor"] = [*line, "--steps-per-epoch", 2, "--unfreeze-learning-rate-factor", 0.5]
    lines["goes on"] = lines["views"]
    plants = {str(step): [["cut", "whole", step]] for step in CUTS} | {"goes on": [["cut", "views", 32]]}
    assert run_jobs(folder, lines, plants=plants) == dict.fromkeys(lines, 0)
    return folder


def saved(run, step, kind="weights"):
    return load_file(run / "checkpoints" / f"step-{step:08}" / f"{kind}.safetensors")


def test_each_phase_trains_its_layers_and_keeps_state_for_no_others(runs):
    first, border, last = (saved(runs / "whole", step) for step in (5, 32, 64))
    assert all(np.array_equal(first[f"conv1/{name}"], last[f"conv1/{name}"]) for name in ("kernel", "bias"))
    assert np.array_equal(first["conv2/kernel"], border["conv2/kernel"])
    assert not np.array_equal(border["conv2/kernel"], last["conv2/kernel"])
    assert not np.array_equal(first["fc6/kernel"], border["fc6/kernel"])
    frozen, thawed = (" ".join(saved(runs / "whole", step, "optimizer")) for step in (32, 64))
    assert "fc6" in frozen and "conv" not in frozen
    assert "conv2" in thawed and "conv1" not in thawed
    # What it knew before the thaw stays: it has counted the steps of both phases.
    assert saved(runs / "whole", 64, "optimizer")["adam/iteration"] == 64


def test_rates_fall_by_the_factor_with_the_thaw(runs):
    for run, steps, factor in (("whole", 16, 0.1), ("other factor", 2, 0.5)):  # a tenth where none is given
        rows = [line.split(",") for line in (runs / run / "metrics.csv").read_text().splitlines()]
        rates = [float(row[rows[0].index("learning_rate")]) for row in rows[1:]]
        whole = [0.001 * (1 + np.cos(np.pi * (steps * epoch - 1) / (4 * steps))) for epoch in range(1, 5)]
        assert rates == pytest.approx([*whole[:2], factor * whole[2], factor * whole[3]])


@pytest.mark.parametrize("step", CUTS)
def test_a_run_that_goes_on_is_the_uninterrupted_one(runs, step):
    one, other = runs / "whole", runs / str(step)
    assert summary(other)["weights_sha256"] == summary(one)["weights_sha256"]
    for name, slot in saved(one, 64, "optimizer").items():
        assert np.array_equal(saved(other, 64, "optimizer")[name], slot), name


def losses(run):
    return [float(row["loss"]) for row in history(run)]


def test_kept_views_are_those_of_the_first_epochs_and_then_come_again(runs):
    assert losses(runs / "views")[:2] == pytest.approx(losses(runs / "endless")[:2], rel=1e-4)
    assert losses(runs / "views")[2:] != pytest.approx(losses(runs / "endless")[2:], rel=1e-3)
    arrays = {file: np.load(file) for file in (runs / "views" / "features").glob("*.npy")}
    shapes = sorted(array.shape for array in arrays.values())
    assert [rows for rows, _ in shapes] == [103, 203, 203]
    one, other = (array for array in arrays.values() if len(array) == 203)
    assert not np.array_equal(one, other)
    said = (runs / "output.txt").read_text()
    assert "computed once for 509 images, 2 views of each of 203 to train on, " in said
    assert "augmented views: 2, not endless; each epoch has the next one, epoch 3 the first again" in said


def test_a_run_on_kept_views_goes_on_with_them(runs):
    assert summary(runs / "goes on")["weights_sha256"] == summary(runs / "views")["weights_sha256"]


def test_features_are_found_by_another_run(runs):
    said = (runs / "output.txt").read_text().partition("job: other rate")[2].partition("job: ")[0]
    assert "; 509 were there already" in said
    assert not (runs / "other rate" / "features").exists()
    assert len(list((runs / "views" / "features").iterdir())) == 3
    assert losses(runs / "other rate")[0] != losses(runs / "views")[0]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    (
        ({"augment": "none"}, "--cache-views 2 keeps augmented views, but --augment is none; add --augment flip_crop"),
        ({"epochs": 2}, "--cache-views 2 has a view for each of the 2 epochs in which layers are frozen"),
        ({"unfreeze_epoch": 3}, "--cache-views 2 has a view for each of the 2 epochs in which layers are frozen"),
        ({"cache_features": "off"}, "--cache-views 2 was given with --cache-features off, which keeps none"),
    ),
)
def test_views_that_would_be_none_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainConfig(**{"freeze": "base", "augment": "flip_crop", "epochs": 9, "cache_views": 2} | settings)


def network():
    return jobs.tiny(0.5, 0)(7, 16)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    (
        ({"freeze": "conv9,fc*"}, "--freeze conv9,fc.: conv9 is no layer of the network; it has conv1, conv2, fc6"),
        ({"freeze": "conv*,fc*"}, "--freeze conv.,fc. leaves no layer to train; freeze fewer layers"),
        (
            {"freeze": "conv1", "unfreeze_epoch": 2, "unfreeze": "conv*"},
            "--unfreeze conv. names conv2, which --freeze conv1 leaves awake; name frozen layers",
        ),
    ),
)
def test_names_that_do_not_fit_are_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        freezing.freeze(network(), TrainConfig(**settings))


def test_a_network_without_a_head_has_no_base():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Reshape((192,))(inputs)))
    with pytest.raises(ConfigError, match="has no Flatten and no global pooling before its head; name the layers"):
        freezing.freeze(model, TrainConfig(freeze="base"))


def test_batch_normalisation_stays_still_when_it_thaws():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    config = TrainConfig(freeze="base", unfreeze_epoch=2)
    freezing.freeze(model, config)
    assert cut(convert(model, 0)).layers == ["norm", "conv"]
    freezing.thaw(model, config)
    assert [layer.trainable for layer in model.layers if layer.weights] == [True, False, True]


def test_rates_fall_with_the_distance_from_the_head():
    factors = freezing.rate_factors(network(), 0.5)
    names = ("conv1", "conv2", "fc6", "fc7", "fc8")
    assert [factors[f"{name}/kernel"] for name in names] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


def test_features_that_draw_or_train_are_not_computed_once():
    model = convert(network(), 0)
    assert cut(model) is None
    for name in ("conv1", "conv2", "fc6"):
        model.get_layer(name).trainable = False
    # Behind fc6 comes dropout, frozen or not.
    found = cut(model)
    assert found.layers == ["fc6", "conv2", "conv1"] and found.shape == (48,)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    assert np.array_equal(found.head(found.trunk(images)), model(images))


def test_an_array_has_its_name_once_it_is_whole(tmp_path):
    path, rows = tmp_path / "features" / "a.npy", np.random.default_rng(0).random((5, 3), np.float32)
    writer = store.Writer(path, 5, 3)
    writer.add(rows[:2])
    assert not path.exists() and store.open_array(path, 5, 3) is None
    writer.add(rows[2:])
    writer.commit()
    assert np.array_equal(store.open_array(path, 5, 3), rows) and np.array_equal(np.load(path), rows)
    assert store.open_array(path, 6, 3) is None
    store.Writer(tmp_path / "features" / "b.npy", 5, 3).drop()
    assert [file.name for file in path.parent.iterdir()] == ["a.npy"]


def test_two_that_write_the_same_array_are_not_in_each_others_way(tmp_path):
    path, rows = tmp_path / "a.npy", np.random.default_rng(0).random((5, 3), np.float32)
    one, other, killed = (store.Writer(path, 5, 3) for _ in range(3))
    for writer in (one, other, killed):
        writer.add(rows[:2])
    one.add(rows[2:])
    one.commit()
    found = store.open_array(path, 5, 3)
    # What another run has just begun stays where several may write, and goes where nobody else can.
    store.remove_unfinished(tmp_path, shared=True)
    other.add(rows[2:])
    other.commit()
    assert np.array_equal(found, rows) and np.array_equal(store.open_array(path, 5, 3), rows)
    assert len(list(tmp_path.iterdir())) == 2
    store.remove_unfinished(tmp_path, shared=False)
    assert list(tmp_path.iterdir()) == [path]


def test_an_array_is_named_by_how_pixels_are_scaled():
    inputs = keras.Input((4, 4, 3))
    names = {
        store.name_of(keras.Model(inputs, keras.layers.Rescaling(scale, name="scale")(inputs)), {})
        for scale in (1 / 255, 1 / 127.5, 1 / 255)
    }
    assert len(names) == 2


OWN = """
    import keras

    class Scaled(keras.layers.Layer):
        def call(self, images):
            return images * 2.0

    def scaled(images):
        return images * 2.0

    def build(classes, image_size):
        images = keras.Input((image_size, image_size, 3), name="images")
        return keras.Model(images, {layer}(images))
"""
LAYERS = {
    "a class": 'Scaled(name="own")',
    "a function": 'keras.layers.Lambda(scaled, name="own")',
    "an activation": 'keras.layers.Dense(2, scaled, kernel_initializer="ones", name="own")',
    "a layer within": 'keras.Sequential([keras.Input((4, 4, 3), name="inner"), Scaled(name="own")], name="within")',
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_an_array_is_named_by_the_users_code(tmp_path, monkeypatch, layer):
    monkeypatch.setattr(sys, "path", [*sys.path])
    path, names = tmp_path / "net.py", []
    for constant in ("2.0", "3.0", "2.0"):
        path.write_text(textwrap.dedent(OWN).format(layer=layer).replace("2.0", constant))
        names.append(store.name_of(load_function(f"{path}:build", "--model")(2, 4), {}))
    assert names[0] == names[2] != names[1]


def test_an_array_is_named_by_the_code_of_what_the_users_class_derives_from(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    own, names = textwrap.dedent(OWN).format(layer=LAYERS["a class"]), []
    for constant in ("2.0", "3.0"):
        folder = tmp_path / constant
        folder.mkdir()
        (folder / "base_of_scaled.py").write_text(own.replace("2.0", constant))
        derived = "import keras\nimport base_of_scaled\n\nclass Scaled(base_of_scaled.Scaled):\n    pass\n\n"
        (folder / "net.py").write_text(derived + own[own.index("def build") :])
        monkeypatch.delitem(sys.modules, "base_of_scaled", raising=False)
        names.append(store.name_of(load_function(f"{folder}/net.py:build", "--model")(2, 4), {}))
    assert names[0] != names[1] and (tmp_path / "2.0/net.py").read_text() == (tmp_path / "3.0/net.py").read_text()


def test_the_names_of_networks_without_code_of_the_users_stay():
    images = keras.Input((4, 4, 3), name="images")
    scaled = keras.layers.Rescaling(1 / 255, name="scale")(images)
    layer = keras.layers.Conv2D(2, 3, activation="relu", kernel_initializer="ones", name="conv")
    assert store.name_of(keras.Model(images, layer(scaled)), {"seed": 1}) == "61b586130fbedeabf0d5a6f9d4a45cc5.npy"
    # Neither has that of a layer of ours, nor a function of TensorFlow's.
    assert [*store._own(convert(network(), 0))] == []
    assert [*store._own(keras.Model(images, keras.layers.Activation(tf.nn.relu)(images)))] == []


def test_on_gpus_an_array_is_named_by_how_they_multiply(monkeypatch):
    images = keras.Input((4, 4, 3), name="images")
    trunk = keras.Model(images, keras.layers.Rescaling(1 / 255, name="scale")(images))
    inputs, one = SimpleNamespace(image_size=4, decoding=("a", "b")), choose.Pass(None, "f" * 64, None)

    def names():
        return {choose.name(TrainConfig(tf32=way), inputs, trunk, one, 64) for way in ("on", "off")}

    assert len(names()) == 1
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["GPU:0"])
    assert len(names()) == 2
