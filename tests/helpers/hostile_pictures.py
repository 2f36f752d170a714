"""Pictures from strangers: bombs, sizes that lie, files cut in every marker."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)


def saved(kind: str, pixels=PIXELS, **how) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **how)
    return content.getvalue()


def jpeg(**how) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved("JPEG", exif=exif, comment=b"hello", **how)


def markers(content: bytes) -> Iterator[tuple[int, int]]:
    """(place, marker) of each segment of a sound JPEG file, in order; the pixels between are walked over."""
    place = 2
    while place < len(content):
        marker = content[place + 1]
        yield place, marker
        if marker == 0xD9:
            return
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        while content[place] != 0xFF or content[place + 1] in (0, *range(0xD0, 0xD8)):
            place += 1


def frame_of(content: bytes) -> int:
    """The place of the segment that holds height and width."""
    return next(place for place, marker in markers(content) if marker in (0xC0, 0xC2))


def sized(content: bytes, height: int, width: int) -> bytes:
    at = frame_of(content) + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def segment(marker: int, payload: bytes, length: int | None = None) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2 if length is None else length) + payload


def before_frame(content: bytes, inserted: bytes) -> bytes:
    at = frame_of(content)
    return content[:at] + inserted + content[at:]


def chunk(name: bytes, payload: bytes, length: int | None = None, crc: int | None = None) -> bytes:
    crc = zlib.crc32(name + payload) if crc is None else crc
    return struct.pack(">I", len(payload) if length is None else length) + name + payload + struct.pack(">I", crc)


def png(width=8, height=8, depth=8, colour=2, interlace=0, body=None, before=b"", end=True) -> bytes:
    data = zlib.compress(bytes((1 + width * 3) * height)) if body is None else body
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    parts = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", data)
    return parts + (chunk(b"IEND", b"") if end else b"")


def zeros(count: int) -> bytes:
    packer = zlib.compressobj(1)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(count >> 20)), packer.flush()])


def gif(screen=(8, 8), frames=((8, 8),), data: bytes | None = None) -> bytes:
    """Frames of one colour; their pixels are those of an 8x8 image unless ``data`` is given."""
    content = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    sound = bytes.fromhex("080f0001081c48b0a0c18308132a4c181000")
    for width, height in frames:
        content += b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + (sound if data is None else data)
    return content + b";"


def long_gif(side: int) -> bytes:
    """A frame of one colour, packed three thousand times: after 4,089 codes, each for a run that is longer by one, all
    are the last one."""
    number, place, left = 4, 3, side * side
    for code, run in ((0, 1), *((code, code - 4) for code in range(6, 4096))):
        number, place, left = number | code << place, place + max(3, code.bit_length()), left - run
    more = -(-left // 4091)
    number |= (1 << 12 * more) - 1 << place
    data = (number | 5 << place + 12 * more).to_bytes((place + 12 * more) // 8 + 2, "little")
    blocks = b"".join(bytes([len(part)]) + part for part in (data[at : at + 255] for at in range(0, len(data), 255)))
    return gif((side, side), ((side, side),), b"\x02" + blocks + b"\0")


def bmp(width=4, height=4, bits=24, offset=54, header=40, data=48, packed=0) -> bytes:
    start = b"BM" + struct.pack("<IHHI", 54 + data, 0, 0, offset)
    return start + struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, packed, 0, 0, 0, 0, 0) + bytes(data)


def pictures() -> Iterator[tuple[str, bytes, bool]]:
    """(name with the ending of its kind, content, whether a sound reader may take it)."""
    for how, sound in (("plain", jpeg()), ("progressive", jpeg(progressive=True))):
        for number, (place, marker) in enumerate(markers(sound)):
            # What is missing of the pixels alone, some decoders make up.
            yield f"{how} cut in marker {number}, {marker:02x}.jpg", sound[: place + 3], marker == 0xD9
        yield f"{how} of 65,500 x 65,500.jpg", sized(sound, 65500, 65500), False
        yield f"{how} of 16,000 x 16,000.jpg", sized(sound, 16000, 16000), False
        yield f"{how} without height.jpg", sized(sound, 0, 48), False
    sound, frame = jpeg(), frame_of(jpeg())
    big = sized(sound, 30000, 30000)
    at = next(place for place, marker in markers(sound) if marker == 0xDA)
    yield "size behind rubbish.jpg", before_frame(big, b"\0\x12\x34" * 9), False
    yield "size behind fill bytes.jpg", before_frame(big, b"\xff" * 99), False
    yield "size behind 200 KB of notes.jpg", before_frame(big, segment(0xFE, bytes(65000)) * 3), False
    yield "two sizes.jpg", before_frame(sound, big[frame : frame + 19]), False
    yield "a segment of no length.jpg", before_frame(sound, segment(0xE5, b"", 0)), True
    yield "a segment that ends beyond the file.jpg", before_frame(sound, segment(0xE5, b"", 65535)), False
    yield "12 bits.jpg", sound[: frame + 4] + b"\x0c" + sound[frame + 5 :], False
    yield "255 components.jpg", sound[: frame + 9] + b"\xff" + sound[frame + 10 :], False
    yield "lossless.jpg", sound[: frame + 1] + b"\xc3" + sound[frame + 2 :], False
    yield "arithmetic.jpg", sound[: frame + 1] + b"\xc9" + sound[frame + 2 :], True
    yield "tables of rubbish.jpg", before_frame(sound, segment(0xC4, b"\xff" * 300)), False
    yield "quantization of rubbish.jpg", before_frame(sound, segment(0xDB, b"\xff" * 70)), False
    yield "pixels of rubbish.jpg", sound[: at + 20] + bytes(range(256)) * 9, True
    yield "ones alone behind the header.jpg", sound[: at + 14] + b"\xff" * 5000, True
    yield "restarts.jpg", sound[: at + 14] + b"\xff\xd0\xff\xd1" * 900, True
    for what, tiff in (
        ("in a circle", b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHIHHI", 1, 0x8769, 4, 1, 8, 0, 8)),
        ("far beyond", b"II*\0" + struct.pack("<I", 2**32 - 1)),
        ("of 65,535 entries", b"MM\0*" + struct.pack(">IH", 8, 65535)),
        ("of an orientation of 2^32 values", b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 2**32 - 1, 6)),
    ):
        yield f"Exif {what}.jpg", sound[:2] + segment(0xE1, b"Exif\0\0" + tiff) + sound[2:], True
    yield "an icon before the end.jpg", sound[:2] + segment(0xE1, b"Exif\0\0" + big[:60000]) + sound[2:], True
    yield "two pictures in one.jpg", sound + big, True

    yield "2^31 - 1 on both sides.png", png(2**31 - 1, 2**31 - 1, body=b"x"), False
    yield "400 million pixels in 50 KB.png", png(20000, 20000, 1, 0, body=zeros(20000 * 2501)), False
    yield "a line of 2^26.png", png(2**26, 8, body=zeros(1 << 20)), False
    yield "no width.png", png(0, 5, body=zlib.compress(b"x")), False
    sound = png()
    for name in (b"IHDR", b"IDAT", b"IEND"):
        yield f"cut in {name.decode()}.png", sound[: sound.index(name) + 6], name == b"IEND"
    yield "IDAT of another checksum.png", sound.replace(b"IEND", b"IDAT")[:-8], True
    yield "3 bits.png", png(depth=3), False
    yield "colours of kind 9.png", png(colour=9), False
    yield "interlaced by 7.png", png(interlace=7), False
    yield "pixels of rubbish.png", png(body=bytes(range(200))), False
    yield "pixels for one line.png", png(body=zlib.compress(bytes(25))), True
    yield "no pixels.png", sound[:33] + chunk(b"IEND", b""), False
    yield "no palette.png", png(colour=3, body=zlib.compress(bytes(72))), False
    yield "no end.png", png(end=False), True
    yield "a chunk of 2^31 - 1.png", sound[:33] + chunk(b"IDAT", b"x", 2**31 - 1), False
    yield "text that unpacks to 64 MB.png", png(before=chunk(b"zTXt", b"a\0\0" + zeros(64 << 20))), True
    yield "a profile that unpacks to 64 MB.png", png(before=chunk(b"iCCP", b"a\0\0" + zeros(64 << 20))), True
    yield "a thousand notes.png", png(before=chunk(b"tEXt", b"a\0" + bytes(99)) * 1000), True

    yield "a screen of 65,535.gif", gif((65535, 65535)), False
    yield "a frame of 65,535.gif", gif((8, 8), ((8, 8), (65535, 65535))), False
    yield "400 million pixels.gif", long_gif(20000), False
    yield "many frames.gif", gif((2000, 2000), ((2000, 2000),) * 200), False
    yield "a frame beyond its screen.gif", gif((4, 4), ((8, 8),)), True
    yield "no frame.gif", gif(frames=()), False
    yield "codes of 13 bits.gif", gif(data=b"\x0d\x02xx\0"), False
    yield "cut in its screen.gif", gif()[:9], False
    yield "cut in its frame.gif", gif()[:27], False
    yield "no sides.gif", gif((0, 0), ((0, 0),)), False
    yield "blocks of rubbish.gif", gif()[:-1] + bytes(range(1, 200)), True

    yield "2^31 - 1 on both sides.bmp", bmp(2**31 - 1, 2**31 - 1), False
    yield "a height of -2^31.bmp", bmp(4, -(2**31)), False
    yield "a width of -4.bmp", bmp(-4, 4), False
    yield "pixels beyond the file.bmp", bmp(offset=2**31 - 1), False
    yield "pixels before the file.bmp", bmp(offset=-1 & 0xFFFFFFFF), False
    yield "a header of 2^32 - 1.bmp", bmp(header=2**32 - 1, bits=8), False
    yield "pixels for one line.bmp", bmp(data=12), False
    yield "packed.bmp", bmp(packed=1, bits=8), False

    for name, content in {
        "empty": b"",
        "one byte": b"\xff",
        "zeros": bytes(5000),
        "a page": b"<!DOCTYPE html><script>alert(1)</script>",
        "a drawing": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        "a program": b"#!/bin/sh\ntouch executed\n",
        "a pickle": b"cposix\nsystem\n(S'touch executed'\ntR.",
        "PDF": b"%PDF-1.7\n" + bytes(500),
        "ZIP": b"PK\3\4" + bytes(500),
        "TIFF": saved("TIFF"),
        "WEBP": saved("WEBP"),
        "rubbish": np.random.default_rng(1).bytes(4000),
        "the start alone": b"\xff\xd8\xff",
    }.items():
        yield f"{name}.jpg", content, False
