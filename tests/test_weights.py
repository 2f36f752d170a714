"""``--weights``: files of every kind give a network what Keras' own loader gives it; what is none is refused."""

import json
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.backend import config as keras_config
from keras.src.legacy.saving import legacy_h5_format
from safetensors.numpy import save_file

from launch.job.config import TrainConfig
from launch.job.weights.begin import begin
from launch.job.weights.stored import WeightsError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype("float32")


def network(classes: int = 4, *, seed: int, prefix: str = "", top: bool = True) -> keras.Model:
    """Convolutions, batch normalisation and two dense layers; without the last two, a base as Keras has them."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name=f"{prefix}conv1")(inputs)
    x = keras.layers.BatchNormalization(name=f"{prefix}norm")(x)
    outputs = x = keras.layers.Conv2D(6, 3, activation="relu", name=f"{prefix}conv2")(x)
    if top:
        x = keras.layers.Dropout(0.5, seed=1)(keras.layers.GlobalAveragePooling2D()(x))
        x = keras.layers.Dense(8, activation="relu", name=f"{prefix}hidden")(x)
        outputs = keras.layers.Dense(classes, name=f"{prefix}logits")(x)
    model = keras.Model(inputs, outputs)
    for variable in model.weights:
        if "norm" in variable.path:
            variable.assign(np.random.default_rng(seed).uniform(0.5, 2, variable.shape))
    return model


def given(path: Path) -> TrainConfig:
    return TrainConfig(weights=str(path))


def save(model: keras.Model, path: Path) -> Path:
    """Write a model's weights in the layout that the path's name asks for."""
    kind = path.name
    if kind.endswith(".safetensors"):
        save_file({v.path: np.array(v) for v in model.weights if "seed" not in v.path}, path)
    elif kind.startswith("old"):
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    elif kind.startswith("whole"):
        legacy_h5_format.save_model_to_hdf5(model, path)
    else:
        model.save(path) if kind.endswith(".keras") else model.save_weights(path)
    return path


KINDS = ("new.weights.h5", "new.keras", "old.h5", "whole.h5", "new.safetensors")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_outputs_of_the_network_that_wrote_it(tmp_path, name):
    written, fresh = network(seed=0), network(seed=1)
    assert not np.array_equal(fresh(IMAGES), written(IMAGES))
    begun = begin(given(save(written, tmp_path / name)), fresh)
    assert np.array_equal(fresh(IMAGES), written(IMAGES))
    assert sorted(begun.taken) == ["conv1", "conv2", "hidden", "logits", "norm"]
    assert len(begun.sentences) == 1, begun.sentences


@pytest.mark.parametrize("name", KINDS)
def test_a_base_goes_below_a_head_and_other_classes_leave_the_last_layer_new(tmp_path, name):
    base, other = network(seed=0, top=False), network(7, seed=2)
    fresh = network(seed=1)
    head = [np.array(variable) for variable in fresh.get_layer("hidden").weights]
    begun = begin(given(save(base, tmp_path / name)), fresh)
    assert sorted(begun.taken) == ["conv1", "conv2", "norm"]
    assert np.array_equal(fresh.get_layer("conv2").output.shape, base.output_shape)
    assert all(map(np.array_equal, head, fresh.get_layer("hidden").weights))
    assert "new, from the seed: hidden, logits" in begun.sentences
    begun = begin(given(save(other, tmp_path / f"{name.partition('.')[0]}-2.{name.partition('.')[2]}")), fresh)
    assert "not taken: logits, which is 8x7 and 7 there and 8x4 and 4 here" in begun.sentences
    assert np.array_equal(fresh.get_layer("hidden").kernel, other.get_layer("hidden").kernel)


@pytest.mark.parametrize("name", ("new.weights.h5", "new.keras", "old.h5"))
def test_layers_of_other_names_go_by_their_place(tmp_path, name):
    written, fresh = network(7, seed=0, prefix="my_"), network(seed=1)
    begun = begin(given(save(written, tmp_path / name)), fresh)
    assert sorted(begun.taken) == ["conv1", "conv2", "hidden", "norm"]
    assert np.array_equal(fresh.get_layer("conv2").kernel, written.get_layer("my_conv2").kernel)
    assert np.array_equal(fresh.get_layer("norm").moving_variance, written.get_layer("my_norm").moving_variance)
    assert "matched by their place" in begun.sentences[0]


def test_weights_of_sixteen_bits_are_widened(tmp_path):
    written, fresh = network(seed=0), network(seed=1)
    halves = {v.path: np.array(v).astype(np.float16) for v in written.weights if "seed" not in v.path}
    save_file(halves, tmp_path / "half.safetensors")
    begin(given(tmp_path / "half.safetensors"), fresh)
    assert np.array_equal(fresh.get_layer("conv1").kernel, halves["conv1/kernel"].astype(np.float32))


def hdf5(change):
    """A maker of a file in which ``change`` has been at work."""

    def make(path: Path) -> Path:
        save(network(seed=0), path := path.with_suffix(".weights.h5"))
        with h5py.File(path, "r+") as file:
            change(file, path)
        return path

    return make


def replaced(file: h5py.File, **how):
    """The first kernel as something else."""
    group = file["layers/conv2d/vars"]
    del group["0"]
    return group.create_dataset("0", **how)


def linked(link):
    def change(file, path):
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars/0"] = link(path)

    return hdf5(change)


def virtual(file, path):
    layout = h5py.VirtualLayout((3, 3, 3, 4), np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 3, 3, 4))
    del file["layers/conv2d/vars/0"]
    file["layers/conv2d/vars"].create_virtual_dataset("0", layout)


def bytes_of(content: bytes):
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


def safetensors(header: dict, data: bytes = b""):
    text = json.dumps(header).encode()
    return bytes_of(len(text).to_bytes(8, "little") + text + data)


def cut_short(name: str, share: float):
    def make(path: Path) -> Path:
        save(network(seed=0), path := path.with_name(name))
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return make


def archive(member: str, content: bytes):
    def make(path: Path) -> Path:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(member, content)
        return path

    return make


def tensor(**changed) -> dict:
    return {"conv1/kernel": {"dtype": "F32", "shape": [3, 3, 3, 4], "data_offsets": [0, 432]} | changed}


HOSTILE = {
    "a file that is not there": lambda path: path,
    "an empty file": bytes_of(b""),
    "text": bytes_of(b"these are no weights\n" * 50),
    "a pickle": bytes_of(b"\x80\x04\x95" + b"cposix\nsystem\n(S'touch executed'\ntR." * 9),
    "an archive without weights": archive("config.json", b"{}"),
    "an archive whose weights are none": archive("model.weights.h5", b"no HDF5" * 100),
    "HDF5 cut in the middle": cut_short("a.weights.h5", 0.5),
    "HDF5 cut in its head": cut_short("b.weights.h5", 0.02),
    "an archive cut": cut_short("c.keras", 0.6),
    "safetensors cut": cut_short("d.safetensors", 0.7),
    "HDF5 of something else": hdf5(lambda file, path: file.move("layers", "pixels")),
    "a link into another file": linked(lambda path: h5py.ExternalLink("/etc/passwd", "/x")),
    "a link within the file": linked(lambda path: h5py.SoftLink("/layers/conv2d_1/vars/0")),
    "a virtual array": hdf5(virtual),
    "an array kept in another file": hdf5(
        lambda file, path: replaced(file, shape=(3, 3, 3, 4), dtype="f4", external=[("/etc/passwd", 0, 432)])
    ),
    "text in the place of numbers": hdf5(lambda file, path: replaced(file, data=np.full((3, 3, 3, 4), b"x"))),
    "a shape without numbers behind it": hdf5(
        lambda file, path: replaced(file, shape=(3, 3, 3, 4), dtype="f4", chunks=(3, 3, 3, 4))
    ),
    "groups that hold themselves": hdf5(lambda file, path: file["layers"].__setitem__("again", file["layers"])),
    "a header longer than the file": bytes_of((10**15).to_bytes(8, "little") + b"{}"),
    "a tensor beyond the file": safetensors(tensor(), b"\0" * 100),
    "a tensor of 10^12 numbers": safetensors(tensor(shape=[10**6, 10**6])),
    "a tensor of negative size": safetensors(tensor(shape=[-3, 3, 3, 4]), b"\0" * 432),
    "a tensor without a type": safetensors({"conv1/kernel": {"shape": [1]}}, b"\0" * 4),
    "a header that is a list": bytes_of((9).to_bytes(8, "little") + b"[1, 2, 3]"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_weights_is_refused_in_one_sentence_and_changes_nothing(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    path, fresh = HOSTILE[what](tmp_path / "weights"), network(seed=1)
    before = [np.array(variable) for variable in fresh.weights]
    with pytest.raises(WeightsError) as caught:
        begin(given(path), fresh)
    sentence = str(caught.value)
    assert sentence.startswith(f"--weights {path}") and "\n" not in sentence and ";" in sentence
    assert all(map(np.array_equal, before, fresh.weights))
    assert not Path("executed").exists()


def test_a_file_of_another_network_is_refused_with_the_first_difference(tmp_path):
    inputs = keras.Input((16, 16, 3))
    other = keras.Model(inputs, keras.layers.Conv2D(5, 5, name="else")(inputs))
    path = save(other, tmp_path / "new.weights.h5")
    with pytest.raises(WeightsError, match="its first is else 5x5x3x5 and 5, the network's first is conv1 3x3x3x4"):
        begin(given(path), network(seed=1))
    path = save(network(seed=0, prefix="my_"), tmp_path / "new.safetensors")  # sorted by name
    with pytest.raises(WeightsError, match="its first is my_conv1 .* the network's first is conv1"):
        begin(given(path), network(seed=1))


def test_a_device_is_not_read(tmp_path):
    with pytest.raises(WeightsError, match="neither a file nor a folder"):
        begin(given("/dev/zero"), network(seed=1))


def test_without_a_network_imagenet_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_config, "_KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    config = TrainConfig(model="keras:VGG16", weights="imagenet", head="flatten")
    with pytest.raises(WeightsError) as caught:
        begin(config, network(seed=1))
    name = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert f"{name} is not in {tmp_path / 'models'} and cannot be fetched from here; " in str(caught.value)
    with pytest.raises(WeightsError, match="is for --model keras:NAME, not for vgg16; use keras:VGG16"):
        begin(TrainConfig(model="vgg16", weights="imagenet"), network(seed=1))
