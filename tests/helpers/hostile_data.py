"""Shards, archives, tables and settings from strangers: lengths and shapes that lie, pickles, links into other files,
what unpacks to a thousand times its size.  REFUSED and EITHER as in ``hostile_pictures.py``."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import tensorflow as tf
from hostile_pictures import jpeg, png, sized, zeros
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

X, Y = np.zeros((6, 4, 4, 3), np.uint8), np.arange(6) % 2
SECRET = "/etc/passwd"


class Runs:
    """A pickle of it leaves a file when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def written(content: bytes, name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


# TFRecords: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details


def framed(payload: bytes, length: int | None = None, head: int | None = None, tail: int = 0) -> bytes:
    """A record of a length and checksums that are not its own."""
    start = struct.pack("<Q", len(payload) if length is None else length)
    head = masked_crc32c(start) if head is None else head
    return start + struct.pack("<I", head) + payload + struct.pack("<I", tail)


def example(image: object = None, label: object = 1, **more: bytes) -> bytes:
    """A record; a list stands for many values, a float for one of the wrong kind."""

    def feature(value):
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    named = {"image/encoded": jpeg() if image is None else image, "image/class/label": label}
    named |= {f"image/class/{name}": value for name, value in more.items()}
    features = tf.train.Features(feature={name: feature(value) for name, value in named.items()})
    return tf.train.Example(features=features).SerializeToString()


def shard(
    *records: bytes, tail: bytes = b"", name: str = "train-00000-of-00001", change=lambda folder: None
) -> Callable[[Path], None]:
    """Two sound records and those that are given, in one file; then bytes that are none."""

    def make(folder: Path) -> None:
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for record in (example(label=0), example(label=1), *records):
                writer.write(record)
        with open(folder / name, "ab") as file:
            file.write(tail)
        change(folder)

    return make


def index(**changed) -> Callable[[Path], None]:
    """An index beside the shard, as Lockstep writes it, but for a field of its last record."""

    def change(folder: Path) -> None:
        from data.formats import tfrecord_index

        tfrecord_index.load_index(folder, [folder / "train-00000-of-00001"])
        with np.load(folder / "index.npz") as file:
            arrays = dict(file)
        for field, value in changed.items():
            arrays["records"][field][-1] = value
        np.savez(folder / "index.npz", **arrays)

    return shard(change=change)


def manifest(**changed) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        size = (folder / "train-00000-of-00001").stat().st_size
        one = {"name": "train-00000-of-00001", "examples": 2, "bytes": size, "sha256": ""}
        split = {"examples": 2, "fingerprint": "", "shards": [one | changed.pop("shard", {})]}
        whole = {"version": 1, "dataset": "x", "classes": ["a", "b"], "splits": {"train": split}} | changed
        (folder / "manifest.json").write_text(json.dumps(whole))

    return shard(change=change)


def nested(depth: int) -> bytes:
    """Groups of an unknown field within each other."""
    return b"\x7b" * depth + b"\x7c" * depth


REFUSED_RECORDS = {
    **{
        f"a record of {length:,} bytes": shard(tail=framed(b"x", length))
        for length in (2**63, 2**64 - 1, 2**62, 2**40, 2**32, 300)
    },
    "a length of another checksum": shard(tail=framed(example(), head=1)),
    "a record of another checksum": shard(tail=framed(example(), tail=1)),
    "cut in a length": shard(tail=framed(example())[:5]),
    "cut in a record": shard(tail=framed(example())[:-9]),
    "no record": written(b"", "train-00000-of-00001"),
    "zeros": shard(tail=bytes(4096)),
    "rubbish behind the records": shard(tail=np.random.default_rng(2).bytes(4000)),
    "a record of rubbish": shard(b"\xff" * 100),
    "an empty record": shard(b""),
    "groups within groups 100,000 times": shard(nested(100_000)),
    "no label": shard(example(label=0.5)),
    "two labels": shard(example(label=[0, 1])),
    "a label of -1": shard(example(label=-1)),
    "a label of 2^63 - 1": shard(example(label=2**63 - 1)),
    "a label of -2^63": shard(example(label=-(2**63))),
    "no image": shard(example(b"")),
    "a million images": shard(example([b""] * 10**6)),
    "an image of 30,000 x 30,000": shard(example(sized(jpeg(), 30000, 30000))),
    "an image of 400 million pixels": shard(example(png(20000, 20000, 1, 0, body=zeros(20000 * 2501)))),
    "an image of rubbish": shard(example(b"rubbish" * 99)),
    "an image that begins 30,000 times": shard(example(jpeg()[:32] * 30_000 + b"x", note=jpeg()[:32] * 30_001)),
    "a manifest of rubbish": shard(change=lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe{")),
    "a manifest without end": shard(change=lambda folder: (folder / "manifest.json").write_text("[" * 10**5)),
    "a manifest of other folders": manifest(shard={"name": f"../..{SECRET}"}),
    "a manifest of shards of -1 byte": manifest(shard={"bytes": -1}),
    "a manifest of one class": manifest(classes=["a"]),
    "a manifest of 10^5000 examples": shard(
        change=lambda folder: (folder / "manifest.json").write_text('{"version": 1' + "0" * 5000 + "}")
    ),
    "one of 999,999,999,999 shards": shard(name="train-000000000000-of-999999999999"),
    "one of two shards": shard(name="train-00000-of-00002"),
    "one shard twice": shard(change=lambda folder: os.link(folder / "train-00000-of-00001", folder / "train-0-of-1")),
    "a pipe for a shard": lambda folder: os.mkfifo(folder / "train-00000-of-00001"),
    "a folder for a shard": lambda folder: (folder / "train-00000-of-00001").mkdir(),
    "a link to itself for a shard": lambda folder: (folder / "train-00000-of-00001").symlink_to("train-00000-of-00001"),
    "an endless device for a shard": lambda folder: (folder / "train-00000-of-00001").symlink_to("/dev/zero"),
    "the passwords for a shard": lambda folder: (folder / "train-00000-of-00001").symlink_to(SECRET),
}
EITHER_RECORDS = {
    "an index that points before its shard": index(image_offset=-5),
    "an index that points beyond its shard": index(image_offset=10**9),
    "an index of images of 2^60 bytes": index(image_length=2**60),
    "an index of images of -1 byte": index(image_length=-1),
    "an index that names another shard": index(shard=7),
    "an index that names the shard before": index(shard=-2),
    "an index of rubbish": shard(change=lambda folder: (folder / "index.npz").write_bytes(b"PK\3\4" + bytes(99))),
    "an index that is a pickle": shard(change=lambda folder: (folder / "index.npz").write_bytes(pickle.dumps(Runs()))),
    "an index that is a pipe": shard(change=lambda folder: os.mkfifo(folder / "index.npz")),
    "a class of a megabyte": shard(example(text=b"x" * 10**6)),
    "a class of bytes": shard(example(text=b"\xff\x00\x1b[2J")),
}


# NumPy's archives: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html


def npy(shape, dtype: str = "|u1", data: bytes = b"", fortran: bool = False) -> bytes:
    header = f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + data


def npz(how: int = zipfile.ZIP_STORED, more: dict[str, bytes] | None = None, **members) -> Callable[[Path], Path]:
    """Sound arrays but for those that are given: arrays, or the bytes of their files."""

    def make(folder: Path) -> Path:
        named = {"x_train": X, "y_train": Y} | members
        with zipfile.ZipFile(folder / "set.npz", "w", how, compresslevel=1) as archive:
            for name, value in named.items():
                content = io.BytesIO()
                if isinstance(value, np.ndarray):
                    np.save(content, value)
                archive.writestr(f"{name}.npy", value if isinstance(value, bytes) else content.getvalue())
            for name, content in (more or {}).items():
                archive.writestr(name, content)
        return folder / "set.npz"

    return make


def flagged(flags: int) -> Callable[[Path], Path]:
    """An archive all of whose members are said to be encrypted, or packed in another way."""

    def make(folder: Path) -> Path:
        path = npz()(folder)
        content = path.read_bytes()
        for start, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            place = content.find(start)
            while place >= 0:
                content = content[: place + at] + struct.pack("<HH", flags & 1, flags >> 1) + content[place + at + 4 :]
                place = content.find(start, place + 1)
        path.write_bytes(content)
        return path

    return make


REFUSED_NPZ = {
    "pixels that are a pickle": npz(x_train=npy((6,), "|O", pickle.dumps([Runs()] * 6))),
    "labels that are a pickle": npz(y_train=npy((6,), "|O", pickle.dumps([Runs()] * 6))),
    "an archive that is a pickle": written(pickle.dumps(Runs()), "set.npz"),
    "pixels of 10^12": npz(x_train=npy((10**6, 1000, 1000, 1), data=b"x")),
    "pixels of 10^30": npz(x_train=npy((10**10, 10**10, 10**10, 3), data=b"x")),
    "pixels of -1": npz(x_train=npy((-1, 4, 4, 3), data=b"x" * 48)),
    "labels of 10^12": npz(y_train=npy((10**12,), "<i8", b"x" * 48)),
    "labels of 10^12 floats": npz(y_train=npy((10**12,), "<f8", b"x" * 48)),
    "pixels of fields": npz(x_train=npy((6,), [("a", "<i4"), ("b", "|O")], b"x" * 72)),
    "a header that is a call": npz(x_train=npy("__import__('os').mkdir('executed')", data=b"x")),
    "a header within headers": npz(x_train=npy("(" * 4000, data=b"x")),
    "a header of 60 KB": npz(x_train=npy("(" + "1," * 30_000 + ")", data=b"x")),
    "no header": npz(x_train=b"rubbish"),
    "a header of a later version": npz(x_train=b"\x93NUMPY\x09\x09" + npy((6, 4, 4, 3), data=bytes(288))[8:]),
    "less than its header says": npz(x_train=npy((6, 4, 4, 3), data=bytes(200))),
    "64 MB of zeros, said to be 400 bytes": npz(zipfile.ZIP_DEFLATED, x_train=npy((400,), data=bytes(64 << 20))),
    "labels that are text": npz(y_train=np.array(["a"] * 6)),
    "labels that are complex": npz(y_train=np.ones(6, complex)),
    "labels that are dates": npz(y_train=np.zeros(6, "M8[s]")),
    "labels of 2^63": npz(y_train=np.full(6, 2**64 - 1, np.uint64)),
    "labels that are not finite": npz(y_train=np.full(6, np.nan)),
    "no images": npz(x_train=np.zeros((0, 4, 4, 3), np.uint8), y_train=np.zeros(0, np.int64)),
    "twelve axes": npz(x_train=np.zeros((6,) + (1,) * 11, np.uint8)),
    "other names": npz(more={"../../x_val.npy": npy((1,)), "X_train.npy": npy((1,))}),
    "encrypted members": flagged(1),
    "members packed in an unknown way": flagged(99 << 1),
    "an archive of nothing": written(b"PK\5\6" + bytes(18), "set.npz"),
    "a pipe": lambda folder: os.mkfifo(folder / "set.npz") or folder / "set.npz",
    "an endless device": lambda folder: Path("/dev/zero"),
    "cut in the middle": lambda folder: written(npz()(folder).read_bytes()[:700], "set.npz")(folder),
}
EITHER_NPZ = {
    "columns first": npz(x_train=np.asfortranarray(X)),
    "big-endian labels": npz(y_train=Y.astype(">i2")),
    "a thousand other arrays": npz(more={f"{number}.npy": npy((1,), data=b"x") for number in range(1000)}),
}


# HDF5


def hdf5(change: Callable[[h5py.File], object] = lambda file: None) -> Callable[[Path], Path]:
    """A sound file in which ``change`` has been at work."""

    def make(folder: Path) -> Path:
        with h5py.File(folder / "set.h5", "w") as file:
            file["x_train"], file["y_train"] = X, Y
            change(file)
        return folder / "set.h5"

    return make


def instead(name: str = "x_train", **how) -> Callable[[Path], Path]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return hdf5(change)


def linked(target, name: str = "x_train") -> Callable[[Path], Path]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = target

    return hdf5(change)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(X.shape, np.uint8)
    layout[:] = h5py.VirtualSource(SECRET, "x", X.shape)
    del file["x_train"]
    file.create_virtual_dataset("x_train", layout)


def flipped(seed: int) -> Callable[[Path], Path]:
    """A sound file of which 40 bytes are others."""

    def make(folder: Path) -> Path:
        content = bytearray(hdf5()(folder).read_bytes())
        random = np.random.default_rng(seed)
        for place in random.integers(0, min(2048, len(content)), 40):
            content[place] = random.integers(256)
        return written(bytes(content), "set.h5")(folder)

    return make


def short(share: float) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        content = hdf5()(folder).read_bytes()
        return written(content[: int(share * len(content))], "set.h5")(folder)

    return make


REFUSED_HDF5 = {
    "a link into another file": linked(h5py.ExternalLink(SECRET, "/x")),
    "another array that is a link into another file": hdf5(
        lambda file: file.__setitem__("x_val", h5py.ExternalLink(SECRET, "/x"))
    ),
    "a link to nowhere": linked(h5py.SoftLink("/gone")),
    "a link to itself": linked(h5py.SoftLink("/x_train")),
    "a virtual array": hdf5(virtual),
    "an array kept in another file": instead(shape=X.shape, dtype="u1", external=[(SECRET, 0, X.size)]),
    "labels kept in another file": instead("y_train", shape=(6,), dtype="i8", external=[(SECRET, 0, 48)]),
    "pixels of 10^12 of which none is there": instead(shape=(10**6, 1000, 1000), dtype="u1", chunks=(1, 1000, 1000)),
    "labels of 10^12 of which none is there": instead("y_train", shape=(10**12,), dtype="i8", chunks=(1000,)),
    "a label of 10^12 numbers": instead("y_train", shape=(6, 10**12), dtype="i8", chunks=(1, 1000)),
    "a chunk of 3 GB": instead(shape=(6, 1000, 1000), maxshape=(None, 1000, 1000), dtype="u1",
                               chunks=(3000, 1000, 1000), compression=1),
    "labels of objects": instead("y_train", data=["a"] * 6, dtype=h5py.string_dtype()),
    "labels that are references": instead("y_train", shape=(6,), dtype=h5py.ref_dtype),
    "pixels of fields": instead(shape=(6, 4, 4), dtype=[("a", "u1"), ("b", "f4")]),
    "a group for pixels": hdf5(lambda file: (file.__delitem__("x_train"), file.create_group("x_train"))),
    "no pixels": instead(shape=None, dtype="u1"),
    "a number for labels": instead("y_train", data=3),
    "an archive that is a pickle": written(pickle.dumps(Runs()), "set.h5"),
    "the start alone": written(b"\x89HDF\r\n\x1a\n", "set.h5"),
    "cut in the middle": short(0.5),
    "cut near its end": short(0.9),
    "a pipe": lambda folder: os.mkfifo(folder / "set.h5") or folder / "set.h5",
    "an endless device": lambda folder: Path("/dev/zero"),
}  # fmt: skip
EITHER_HDF5 = {f"40 other bytes, {seed}": flipped(seed) for seed in range(8)}


# CIFAR-10


def batch(content: bytes) -> Callable[[Path], None]:
    return written(content, "data_batch_1")


def array_of(shape: bytes) -> bytes:
    """A pickle that makes an array of a shape, and no more."""
    start = b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    return start + shape + b"\x85U\x01b\x87Rs."


def packed(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, target: str = "") -> Callable[[Path], Path]:
    """An archive with one member whose header says more than there is."""

    def make(folder: Path) -> Path:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname = kind, size, target
        return written(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024), "cifar-10-binary.tar.gz")(folder)

    return make


REFUSED_CIFAR = {
    "a pickle that runs": batch(pickle.dumps({b"data": Runs()})),
    "a pickle that runs, old": batch(b"cos\nmkdir\n(S'executed'\ntR."),
    "a pickle that imports": batch(b"cantigravity\nx\n."),
    "a pickle that makes an array of 10^12": batch(array_of(b"\x8a\x06\x00\x10\xa5\xd4\xe8\x00")),
    "a pickle of a text of 2^31": batch(b"\x80\x02T\xff\xff\xff\x7fx"),
    "a pickle of a number of 2^31 bytes": batch(b"\x80\x02\x8b\xff\xff\xff\x7fx"),
    "a pickle within itself": batch(b"\x80\x02]q\x00h\x00a."),
    "a pickle of 100,000 lists": batch(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    "a pickle without end": batch(b"\x80\x02(((("),
    "a pickle of a persistent thing": batch(b"Pexecuted\n."),
    "a pipe": lambda folder: os.mkfifo(folder / "data_batch_1.bin"),
    "an endless device": lambda folder: (folder / "data_batch_1.bin").symlink_to("/dev/zero"),
    "an archive of 10^12 bytes": packed("data_batch_1.bin", size=10**12),
    "an archive with a link outside": packed("data_batch_1.bin", tarfile.SYMTYPE, target=SECRET),
    "an archive with a link to itself": packed("data_batch_1.bin", tarfile.LNKTYPE, target="data_batch_1.bin"),
    "an archive of rubbish": written(b"\x1f\x8b\x08" + bytes(99), "cifar-10-binary.tar.gz"),
    "records of rubbish": written(b"\xff" * 3073 * 2, "data_batch_1.bin"),
}  # fmt: skip
