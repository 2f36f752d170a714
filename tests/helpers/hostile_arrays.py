"""NumPy's archives, HDF5 files and CIFAR-10's archives from strangers: shapes that lie, pickles, links into other
files, what unpacks to a thousand times its size.  REFUSED and EITHER as in ``hostile_folders.py``."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from hostile_records import SECRET, Runs, written

X, Y = np.zeros((6, 4, 4, 3), np.uint8), np.arange(6) % 2


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
