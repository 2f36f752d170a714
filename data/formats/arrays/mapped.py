"""Arrays of NumPy archives where they lie in the file: one copy for all processes of a host, read as it is needed."""

import struct
import zipfile
import zlib

import numpy as np

LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip's member, behind which its name and extra field stand
PART = 2**24  # bytes that are checked at a time


def map_array(path: str, name: str) -> np.ndarray | None:
    """The array `name` of a .npz file, not writable; None where it cannot be mapped: compressed, pickled or empty.

    It is read once, for its checksum. The file must not be written to while the array is used; another file may take
    its name.

    Raises:
        OSError, KeyError, ValueError, zipfile.BadZipFile: the file is missing or damaged, or has no such array.
    """
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                return None
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            header = file.tell()
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if dtype.hasobject or fortran or not size or header + size != member.file_size:
        return None
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        start = member.header_offset + LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size)))
    whole = np.memmap(path, np.uint8, "r", start, (member.file_size,))
    checksum = 0
    for place in range(0, len(whole), PART):
        checksum = zlib.crc32(whole[place : place + PART], checksum)
    if checksum != member.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {member.filename!r}")
    return whole[header:].view(dtype).reshape(shape)
