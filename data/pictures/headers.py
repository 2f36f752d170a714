"""What a file is, by its size and its first bytes: whether it can be a picture, and how it was held.

Nothing is decoded: a picture that is cut in its midst is found by whoever decodes it.  Loads no TensorFlow: processes
that look at files (`look.py`) have none.
"""

import os
import stat
import struct
from collections.abc import Callable, Sequence

from data.pictures.orientation import may_be_turned
from data.pictures.size import LARGEST, decoded_bytes

FLAGS = os.O_RDONLY | os.O_NONBLOCK  # a pipe would be waited for
HEAD = 4096  # bytes: a page, which is what a disk gives anyway
LARGEST_FILE = 1 << 28  # bytes
CONVERT = "which cannot be read: convert it to JPEG or PNG"
# First bytes -> what has them and cannot be decoded.
OTHERS = (
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"), (b"8BPS", "Photoshop"), (b"%PDF", "PDF"), (b"PK\3\4", "ZIP"), (b"\x1f\x8b", "gzip"),
    (b"\0\0\1\0", "icon"),
)  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n"
SMALLEST_PNG = 57  # bytes of signature, header, an empty data chunk and the end


def look_at_each(places: Sequence[bytes]) -> tuple[dict[int, str], list[int], int]:
    """What is wrong with files, by their numbers; the size of each in bytes; and how many have an orientation."""
    problems, sizes, turned = {}, [0] * len(places), 0
    for number, place in enumerate(places):
        try:
            descriptor = os.open(place, FLAGS)
            try:
                status = os.fstat(descriptor)
                if stat.S_ISREG(status.st_mode):
                    head = os.read(descriptor, HEAD)
                    problem = what_is_wrong(head) or _too_large(descriptor, head, status.st_size)
                else:
                    problem = "is no regular file"
            finally:
                os.close(descriptor)
        except OSError as error:
            problems[number] = f"cannot be read ({error.strerror})"
            continue
        sizes[number] = status.st_size
        if problem:
            problems[number] = problem
        else:
            turned += may_be_turned(head)
    return problems, sizes, turned


def _too_large(descriptor: int, head: bytes, size: int) -> str | None:
    """Why a file of that size is not to be read or decoded, or None."""
    if size > LARGEST_FILE:
        return f"has {size:,} bytes, more than {LARGEST_FILE:,}"

    def read(place: int, count: int) -> bytes:
        return head[place : place + count] if place + count <= len(head) else os.pread(descriptor, count, place)

    return larger_than_pictures_are(read)


def larger_than_pictures_are(read: Callable[[int, int], bytes]) -> str | None:
    """Why a picture is not to be decoded, by its headers, or None; `read` as for `decoded_bytes`."""
    if (size := decoded_bytes(read)) > LARGEST:
        return f"takes {size:,} bytes when it is decoded, more than {LARGEST:,}: make it smaller"
    return None


def what_is_wrong(head: bytes) -> str | None:
    """Why a file whose first 4096 bytes (all, where it is shorter) are `head` cannot be a picture, or None."""
    whole = len(head) < HEAD
    if head.startswith(b"\xff\xd8\xff"):
        return "is a JPEG that ends before its pixels" if whole and _ends_early(head) else None
    if head.startswith(PNG):
        return "is a PNG that ends before its pixels" if len(head) < SMALLEST_PNG else None
    if head.startswith(b"GIF8"):
        return "is a GIF that ends before its pixels" if len(head) < 14 else None
    if head.startswith(b"BM") and len(head) >= 54:
        return _wrong_bitmap(head)
    return _named(head)


def _wrong_bitmap(head: bytes) -> str | None:
    header, bits, compression = struct.unpack_from("<I10xHI", head, 14)
    if compression not in (0, 3):
        return f"is a compressed BMP, {CONVERT}"
    if bits == 8:
        # TensorFlow takes the numbers of palette entries for shades of grey, which they seldom are.
        palette = head[14 + header : 14 + header + 1024]
        grey = all(palette[4 * shade : 4 * shade + 3] == bytes([shade] * 3) for shade in range(len(palette) // 4))
        return None if grey else f"is a BMP with a palette, {CONVERT}"
    return None if bits in (24, 32) else f"is a BMP of {bits} bits per pixel, {CONVERT}"


def _named(head: bytes) -> str:
    if not head:
        return "is empty"
    if not head.strip(b"\0"):
        return "holds zeros alone"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return f"is WEBP, {CONVERT}"
    if head[4:8] == b"ftyp":
        kind = "AVIF" if head[8:12] in (b"avif", b"avis") else "HEIC or a film"
        return f"is {kind}, {CONVERT}"
    for start, name in OTHERS:
        if head.startswith(start):
            return f"is {name}, {CONVERT}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "is a web page, not a picture"
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS: fetch the files with git lfs pull"
    if b"<svg" in text[:1000]:
        return f"is SVG, {CONVERT}"
    if b"\0" not in head[:512] and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head[:512]):
        return "is text, not a picture"
    return "does not begin as JPEG, PNG, GIF or BMP do"


def _ends_early(jpeg: bytes) -> bool:
    """Whether a whole JPEG file has no start of scan: its segments are walked by their lengths."""
    place = 2
    while place + 4 <= len(jpeg):
        if jpeg[place] != 0xFF:
            return False  # odd, but decoders search for the next marker
        marker = jpeg[place + 1]
        if marker == 0xDA:
            return False
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
        else:
            place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return True
