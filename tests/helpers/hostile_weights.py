"""Weights, checkpoints and whole runs from strangers.  REFUSED and EITHER as in ``hostile_folders.py``."""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from hostile_files import LAUGHS
from hostile_records import SECRET, written
from test_weights import HOSTILE, hdf5, network, replaced, save

from data.pictures import decode
from distributed.checkpoint import manager
from distributed.checkpoint.commit import Checkpoint
from launch.job import identity
from launch.job.config import TrainConfig
from launch.trained.record import LOGITS, Record

# Weights; most are those of test_weights.py


def weights(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    return lambda folder: make(folder / "weights")


def archived(change: Callable) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        save(network(seed=0), path := path.with_name("a.keras"))
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            change(archive, members)
        return path

    return make


def squeezed(archive, members) -> None:
    archive.writestr("model.weights.h5", members["model.weights.h5"] + bytes(50 << 20), zipfile.ZIP_DEFLATED, 1)


def huge_chunks(file, path) -> None:
    replaced(file, shape=(3, 3, 3, 4), dtype="f4", maxshape=(None,) * 4, chunks=(70, 100, 100, 100), compression=1)
    file["layers/conv2d/vars/0"][:] = 1


CODE = {"config.json": b'{"module": "os", "class_name": "mkdir", "config": {"path": "executed"}}'}


def header(text: bytes) -> Callable[[Path], Path]:
    return lambda path: path.write_bytes(len(text).to_bytes(8, "little") + text) and path


REFUSED_WEIGHTS = {name: weights(make) for name, make in HOSTILE.items()} | {
    "an archive packed a thousand times": weights(archived(squeezed)),
    "a chunk of 280 MB": weights(hdf5(huge_chunks)),
    "a header of 20 MB of lists": weights(header(b'{"a": [' + b"[]," * (20 << 18) + b"[]]}")),
    "a header of lists within lists": weights(header(b"[" * 10**6)),
    "a header that names one tensor twice": weights(header(b'{"a": {}, "a": {}}')),
    "a tensor of another folder": weights(
        header(b'{"../../a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}')
    ),
    "a number of 5,000 digits": weights(header(b'{"a": ' + b"9" * 5000 + b"}")),
    "an endless device": lambda folder: Path("/dev/zero"),
    "a pipe": lambda folder: os.mkfifo(folder / "x.h5") or folder / "x.h5",
}
EITHER_WEIGHTS = {
    "code beside the weights": weights(
        archived(lambda archive, members: [archive.writestr(n, c) for n, c in (members | CODE).items()])
    ),
}  # fmt: skip


# Checkpoints and runs

ARRAYS = {"dense/kernel": np.arange(12, dtype=np.float32).reshape(3, 4), "dense/bias": np.zeros(4, np.float32)}


def plain() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Dense(2, name="d")(keras.layers.GlobalAveragePooling2D()(inputs)))


def run(folder: Path) -> Path:
    """A run directory with one checkpoint, whose network came as a Python object."""
    model = plain()
    record = Record(
        classes=("a", "b"), image_size=8, pixels=decode.description(8, decode.NOW), outputs=LOGITS, model="mine",
        model_sha256=identity.model_sha256(model), dataset="npz", data_sha256="", versions=identity.versions(),
    )  # fmt: skip
    configuration = TrainConfig().model_dump(mode="json")
    state = {"step": 1, "epoch": 1, "configuration": configuration, "files": {}, "record": record.as_json()}
    stored = {variable.path: np.array(variable) for variable in model.weights}
    place = folder / "run"
    manager.commit(place / "checkpoints", 1, Checkpoint(stored, {}, state), keep=1, best=True)
    architecture = json.loads(model.to_json()) | {"weight_paths": [variable.path for variable in model.weights]}
    (place / "model.json").write_text(json.dumps(architecture))
    (place / "config.yaml").write_text("seed: 1\n")
    (place / "metrics.csv").write_text("epoch,step,loss\n1,1,0.5\n")
    return place


def changed(file: str, change: Callable) -> Callable[[Path], Path]:
    """A sound run in which a JSON file was changed; where it is the checkpoint's, the manifest agrees."""

    def make(folder: Path) -> Path:
        place = run(folder)
        path = place / file
        value = change(json.loads(path.read_text()))
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        path.write_bytes(content)
        if file.endswith("state.json"):
            manifest = json.loads((path.parent / "manifest.json").read_text())
            manifest["files"]["state.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            (path.parent / "manifest.json").write_text(json.dumps(manifest))
        return place

    return make


STATE, MANIFEST = "checkpoints/step-00000001/state.json", "checkpoints/step-00000001/manifest.json"


def state(**values) -> Callable[[Path], Path]:
    return changed(STATE, lambda found: found | values)


def setting(**values) -> Callable[[Path], Path]:
    return changed(STATE, lambda found: found | {"configuration": found["configuration"] | values})


def recorded(**values) -> Callable[[Path], Path]:
    return changed(STATE, lambda found: found | {"record": found["record"] | values})


def layer(module: str, name: str, /, **config) -> Callable[[Path], Path]:
    """The network with another layer in it."""

    def change(found: dict) -> dict:
        found["config"]["layers"][1] |= {"module": module, "class_name": name, "registered_name": None}
        found["config"]["layers"][1]["config"] = {"name": found["config"]["layers"][1]["name"]} | config
        return found

    return changed("model.json", change)


def own_code(folder: Path) -> Path:
    """A run that names a file beside it as its network's code, which is not the one that it was trained with."""
    text = b"import os\n\nos.mkdir('executed')\n\n\ndef build(classes, image_size):\n    pass\n"
    code = written(text, "net.py")(folder)
    place = setting(model=f"{code}:build")(folder)
    (place / "model.json").unlink()
    return place


def tensors(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        place = run(folder)
        path = place / "checkpoints" / "step-00000001"
        content = change((path / "weights.safetensors").read_bytes())
        (path / "weights.safetensors").write_bytes(content)
        manifest = json.loads((path / "manifest.json").read_text())
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"]["weights.safetensors"] = {"bytes": len(content), "sha256": digest}
        (path / "manifest.json").write_text(json.dumps(manifest))
        return place

    return make


def offsets(first: int, second: int) -> Callable[[Path], Path]:
    def change(content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        names = json.loads(content[8 : 8 + length])
        for entry in names.values():
            entry["data_offsets"] = [first, first + entry["data_offsets"][1] - entry["data_offsets"][0] + second]
        text = json.dumps(names).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + length :]

    return tensors(change)


def bent(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        place = run(folder)
        change(place / "checkpoints" / "step-00000001")
        return place

    return make


def swapped(name: str, target: str) -> Callable[[Path], Path]:
    return bent(lambda path: ((path / name).unlink(), (path / name).symlink_to(target)))


REFUSED_RUNS = {
    "tensors far beyond the file": offsets(10**30, 0),
    "tensors just beyond the file": offsets(100, 0),
    "tensors before the file": offsets(-100, 0),
    "tensors that are longer than their shapes": offsets(0, 8),
    "a tensors' header of 2^60 bytes": tensors(lambda content: (2**60).to_bytes(8, "little") + content[8:]),
    "a manifest without end": changed(MANIFEST, lambda found: b"[" * 10**6),
    "a manifest of other files": changed(MANIFEST, lambda found: found | {"files": {f"../../..{SECRET}": {}}}),
    "a manifest of 10^5000": changed(MANIFEST, lambda found: b'{"format": 1' + b"0" * 5000 + b"}"),
    "a state that is a list": changed(STATE, lambda found: []),
    "a state without end": changed(STATE, lambda found: b'{"a":' * 10**5),
    "a state without settings": state(configuration=None),
    "settings that are numbers": setting(model=3),
    "a precision that is a list": setting(precision=["float32"]),
    "a record that is a number": state(record=3),
    "a record without classes": recorded(classes=[]),
    "a record whose classes are numbers": recorded(classes=[1, 2]),
    "a record of pictures of -1": recorded(image_size=-1),
    "a record of pixels that are a list": recorded(pixels=[1]),
    "a record of another network": recorded(model_sha256="0" * 64),
    "a lambda in the network": layer("keras.layers", "Lambda", function={
        "class_name": "__lambda__", "config": {"code": "4wAAAAAAAAAAAAAAAAEAAAABAAAAQwAAAHMEAAAAfABTACkBTqkAKQHaAXh",
                                               "defaults": None, "closure": None}}),
    "a function of os in the network": layer("os", "mkdir", path="executed"),
    "a built-in in the network": layer("builtins", "exec", source="import os; os.mkdir('executed')"),
    "a module to import in the network": layer("antigravity", "x"),
    "a vocabulary that is the passwords": layer("keras.layers", "StringLookup", vocabulary=SECRET),
    "a layer of PyTorch in the network": layer("keras.layers", "TorchModuleWrapper", module={"class_name": "bytes"}),
    "a saved model in the network": layer("keras.layers", "TFSMLayer", filepath=SECRET),
    "a network of 10^12 weights": layer("keras.layers", "Dense", units=10**12),
    "a network without end": changed("model.json", lambda found: b'{"a":' * 10**5),
    "code of another file": own_code,
    "weights that are a link": swapped("weights.safetensors", SECRET),
    "a manifest that is a link": swapped("manifest.json", SECRET),
    "a state that is an endless device": swapped("state.json", "/dev/zero"),
    "a manifest that is a pipe": bent(lambda p: ((p / "manifest.json").unlink(), os.mkfifo(p / "manifest.json"))),
    "a state that is a pipe": bent(lambda path: ((path / "state.json").unlink(), os.mkfifo(path / "state.json"))),
    "a checkpoint that is a link to itself": bent(lambda path: (shutil.rmtree(path), path.symlink_to(path.name))),
    "a checkpoint that is a file": bent(lambda path: (shutil.rmtree(path), path.write_text("x"))),
    "a folder of links": lambda folder: (folder / "checkpoints").symlink_to(SECRET) or folder,
}  # fmt: skip


def told(name: str, content: bytes | None) -> Callable[[Path], Path]:
    """A run with another file; None: a pipe in its place."""

    def make(folder: Path) -> Path:
        path = run(folder) / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        os.mkfifo(path) if content is None else path.write_bytes(content)
        return folder / "run"

    return make


REFUSED_COMPARISONS = {
    "settings that are an object": told("config.yaml", b"seed: !!python/object/apply:os.mkdir [executed]\n"),
    "settings of aliases": told("config.yaml", LAUGHS.encode()),
    "settings without end": told("config.yaml", b"[" * 20_000),
    "settings of a date that is none": told("config.yaml", b"seed: 2024-99-99\n"),
    "settings that are a pipe": told("config.yaml", None),
    "metrics that are a pipe": told("metrics.csv", None),
    "metrics of a field of 10 MB": told("metrics.csv", b"epoch,step\n1," + b"1" * 10**7 + b"\n"),
    "metrics that are no numbers": told("metrics.csv", b"epoch,step\n1,=cmd\n"),
    "a summary without end": told("summary.json", b"[" * 10**6),
    "a summary of 10^5000": told("summary.json", b'{"a": 1' + b"0" * 5000 + b"}"),
    "an evaluation of a pipe": told("evaluation-x/metrics.json", None),
    "an evaluation whose picture is a pickle": lambda folder: (
        told("evaluation-x/metrics.json", b"{}")(folder),
        told("evaluation-x/worst.png", b"cos\nmkdir\n(S'executed'\ntR."),
    )[1](folder),
}
