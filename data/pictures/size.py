"""How many bytes a picture takes when it is decoded, by its headers: a file of 50 KB may ask for gigabytes.

Formats: ITU-T T.81, annex B (JPEG), the PNG specification (https://www.w3.org/TR/png), GIF89a, and BITMAPINFOHEADER.
Rubbish between the segments of a JPEG file is passed over, as decoders do.
"""

import struct
from collections.abc import Callable

MOST_PIXELS = 100_000_000  # nobody means to train on more
LARGEST = 3 * MOST_PIXELS  # bytes
WINDOW = 512  # bytes that are looked at once
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the segments with height and width
ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
WITH_LENGTH = {*range(0x02, 0xFF)} - ALONE - {0xD9, 0xDA}  # markers of segments before the pixels

Read = Callable[[int, int], bytes]  # (first byte, how many) -> these, or fewer at the end of the file


def decoded_bytes(read: Read) -> int:
    """What TensorFlow allocates to decode a JPEG, PNG, GIF or BMP file; 0 where its headers do not say."""
    head = read(0, 32)
    if head.startswith(b"\xff\xd8"):
        return _jpeg(read)
    if head.startswith(b"GIF8") and len(head) >= 13:
        return _gif(read, head)
    if head.startswith(b"\x89PNG") and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
    elif head.startswith(b"BM") and len(head) >= 26:
        width, height = map(abs, struct.unpack_from("<ii", head, 18))  # a height below 0 means top to bottom
    else:
        return 0
    return 3 * width * height


def _jpeg(read: Read) -> int:
    place = 2
    while window := read(place, WINDOW):
        at = 0
        # Nearly all files: segment follows segment. What is odd is left to the lines below.
        while at + 9 <= len(window) and window[at] == 0xFF and (marker := window[at + 1]) in WITH_LENGTH:
            if marker in FRAMES:
                height, width = struct.unpack_from(">HH", window, at + 5)
                return 3 * height * width
            at += 2 + (window[at + 2] << 8 | window[at + 3])
        if at:
            place += at
            continue
        start = window.find(b"\xff")
        if start < 0:
            place += len(window)
            continue
        marked = window[start:].lstrip(b"\xff")
        if len(marked) < 8:  # the marker may stand at the end of the window
            if len(window) < WINDOW:
                return 0
            place += len(window) - len(marked) - 1
            continue
        marker, length, _, height, width = struct.unpack_from(">BHBHH", marked)
        place += len(window) - len(marked) + 1
        if marker in FRAMES:
            return 3 * height * width
        if marker in (0xD9, 0xDA):
            return 0
        if marker and marker not in ALONE:
            place += length
    return 0


def _gif(read: Read, head: bytes) -> int:
    """The first picture, and a byte for each pixel of every frame: the decoder unpacks all of them."""
    width, height, flags = struct.unpack_from("<HHB", head, 6)
    total, place = 3 * width * height, 13 + _palette(flags)
    while (block := read(place, 10)) and total <= LARGEST:
        if block[0] == 0x2C and len(block) == 10:
            width, height, flags = struct.unpack_from("<HHB", block, 5)
            total, place = total + width * height, place + 11 + _palette(flags)
        elif block[0] == 0x21:
            place += 2
        else:
            break
        while size := read(place, 1):
            place += 1 + size[0]
            if not size[0]:
                break
    return total


def _palette(flags: int) -> int:
    """Bytes of the colour table that flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
