"""CIFAR-10 in its official formats, with a few records instead of 60,000."""

import io
import pickle
import struct
import tarfile

import numpy as np
import pytest

from data.datasets import DataError
from data.formats.cifar10 import source as cifar10
from data.formats.cifar10.source import load_cifar10

BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def batch(index):
    """Labels [2] and planes uint8 [2, 3072] of a batch."""
    planes = np.random.default_rng(index).integers(0, 256, (2, 3072), dtype=np.uint8)
    return [index, 9], planes


def binary(labels, planes):
    return np.concatenate([np.array(labels, np.uint8)[:, None], planes], axis=1).tobytes()


def python2_pickle(labels, planes):
    """The opcodes of the published files: protocol 2, byte strings, numpy's old module name."""
    text = lambda s: b"U" + bytes([len(s)]) + s  # noqa: E731
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xff"
    dtype += b"J\xff\xff\xff\xffK\x00tb"
    shape = b"K" + bytes([len(planes)]) + b"M\x00\x0c\x86"
    state = b"(K\x01" + shape + dtype + b"\x89" + b"T" + struct.pack("<i", planes.size) + planes.tobytes() + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    pairs = text(b"batch_label") + text(b"training batch") + text(b"labels") + numbers + text(b"data") + array + state
    return b"\x80\x02}(" + pairs + b"u."


def python3_pickle(labels, planes):
    return pickle.dumps({b"data": planes, b"labels": labels}, protocol=4)


FORMATS = {
    "binary": ("cifar-10-batches-bin", ".bin", "cifar-10-binary.tar.gz", binary),
    "python": ("cifar-10-batches-py", "", "cifar-10-python.tar.gz", python2_pickle),
    "python3": ("cifar-10-batches-py", "", "cifar-10-python.tar.gz", python3_pickle),
}


def write(root, form="binary", **replaced):
    """An unpacked archive below `root`; `replaced` gives other content for some batches (None: no file)."""
    folder, suffix, _, encode = FORMATS[form]
    (root / folder).mkdir()
    for index, name in enumerate(BATCHES):
        content = replaced.get(name, encode(*batch(index)))
        if content is not None:
            (root / folder / (name + suffix)).write_bytes(content)
    (root / folder / "readme.html").write_text("hello")
    return root / folder


def pack(root, form, folder):
    with tarfile.open(root / FORMATS[form][2], "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    return root / FORMATS[form][2]


def check(splits):
    train, validation = splits
    assert train.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9] and validation.labels.tolist() == [5, 9]
    planes = batch(3)[1][1].reshape(3, 32, 32)
    np.testing.assert_array_equal(train.read([7])[0], planes.transpose(1, 2, 0))
    assert train.classes[0] == "airplane" and train.image_size == (32, 32) and not train.encoded


@pytest.mark.parametrize("form", FORMATS)
def test_folder_its_parent_the_archive_and_its_folder(tmp_path, form):
    folder = write(tmp_path, form)
    check(load_cifar10(str(folder)))
    check(load_cifar10(str(tmp_path)))
    assert load_cifar10(str(folder))[0].note.endswith("test set are validated on, as there are no others")
    (tmp_path / "packed").mkdir()
    archive = pack(tmp_path / "packed", form, folder)
    check(load_cifar10(str(archive)))
    check(load_cifar10(str(archive.parent)))
    if form == "python":
        (tmp_path / "datasets" / "cifar-10-batches-py-target").mkdir(parents=True)
        folder.rename(tmp_path / "datasets" / cifar10.KERAS_CACHE)
        check(load_cifar10(str(tmp_path / "datasets")))


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"data_batch_2": binary([1, 10], batch(2)[1])}, r"data_batch_2\.bin, record 1: label 10 is out of range"),
        ({"test_batch": binary(*batch(5))[:-1]}, r"test_batch\.bin ends inside record 1 \(6145 bytes\)"),
        ({"data_batch_5": b""}, r"data_batch_5\.bin ends inside record 0"),
        ({"data_batch_4": None}, r"cannot read .*data_batch_4\.bin"),
    ],
)
def test_bad_binary_batches(tmp_path, replaced, words):
    with pytest.raises(DataError, match=words):
        load_cifar10(str(write(tmp_path, **replaced)))


class Malicious:
    def __reduce__(self):
        return print, ("this code ran",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Malicious()), r"data_batch_3 asks to load builtins\.print"),
        (python2_pickle(*batch(3))[:-100], "data_batch_3 is not a whole pickle"),
        (python2_pickle([1, 10], batch(3)[1]), "data_batch_3, record 1: label 10 is out of range"),
        (python2_pickle([1], batch(3)[1]), "data_batch_3 does not hold"),
        (python3_pickle([1, 2], batch(3)[1].astype(np.int32)), "data_batch_3 does not hold"),
        (python3_pickle([1, 2], batch(3)[1][:, 1:]), "data_batch_3 does not hold"),
        (python3_pickle([1, "2"], batch(3)[1]), "data_batch_3 does not hold"),
        (pickle.dumps([1]), "data_batch_3 does not hold"),
    ],
)
def test_bad_pickles(tmp_path, capsys, content, words):
    with pytest.raises(DataError, match=words):
        load_cifar10(str(write(tmp_path, "python", data_batch_3=content)))
    assert "this code ran" not in capsys.readouterr().out


def test_bad_archives_and_places(tmp_path):
    with pytest.raises(DataError, match=r"has none of these.*cifar-10-binary\.tar\.gz"):
        load_cifar10(str(tmp_path))
    with pytest.raises(DataError, match="nowhere does not exist"):
        load_cifar10(str(tmp_path / "nowhere"))
    folder = write(tmp_path, test_batch=None)
    (tmp_path / "packed").mkdir()
    archive = pack(tmp_path / "packed", "binary", folder)
    with pytest.raises(DataError, match=r"holds no test_batch\.bin"):
        load_cifar10(str(archive))
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DataError, match="not a whole tar archive"):
        load_cifar10(str(archive))
    archive.write_bytes(io.BytesIO(b"<html>not found</html>").getvalue())
    with pytest.raises(DataError, match="not a whole tar archive"):
        load_cifar10(str(archive))


def test_without_a_folder_and_without_a_network_it_says_what_to_do(tmp_path, monkeypatch):
    def no_network():
        raise Exception("URL fetch failure")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.datasets.cifar10.load_data", no_network)
    with pytest.raises(DataError, match=r"URL fetch failure.*pass --data-dir"):
        load_cifar10(None)


def test_keras_download_is_taken_as_it_is(tmp_path, monkeypatch):
    pixels = np.arange(2 * 3072, dtype=np.uint64).astype(np.uint8).reshape(2, 32, 32, 3)
    labels = np.array([[3], [4]], np.uint8)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.datasets.cifar10.load_data", lambda: ((pixels, labels), (pixels[:1], labels[:1])))
    train, validation = load_cifar10(None)
    np.testing.assert_array_equal(train.pixels, pixels)
    assert (train.labels.tolist(), validation.labels.tolist()) == ([3, 4], [3])
    assert train.classes == cifar10.CLASSES
