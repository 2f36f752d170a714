"""Photographs are turned upright by their orientation tag: wherever it stands, in training and after it alike."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from data import exif, pipeline
from data.datasets import FileSource
from data.decode import Decoding, decode_window
from data.order import Order, SequentialOrder, Share

HEIGHT, WIDTH = 30, 44


def tiff(value: int, order: str, *, tag=0x0112, kind=3, at=8) -> bytes:
    """An Exif segment's content: three entries, of which one may be the orientation."""
    entries = [(0x010F, 3, 7), (tag, kind, value), (0x0131, 3, 9)]
    body = struct.pack(f"{order}H", len(entries))
    body += b"".join(struct.pack(f"{order}HHIHxx", *entry[:2], 1, entry[2]) for entry in entries)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    return b"Exif\0\0" + head + b"\0" * (at - 8) + body + b"\0" * 4


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def pixels(height=HEIGHT, width=WIDTH, seed=0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(*segments: bytes, seed=0) -> bytes:
    """A JPEG file that begins with these segments."""
    stream = io.BytesIO()
    Image.fromarray(pixels(seed=seed)).save(stream, "JPEG", quality=95, subsampling=0)
    content = stream.getvalue()
    # Pillow's own first segment is JFIF's, of 18 bytes.
    return content[:2] + b"".join(segments) + content[20:]


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
PROFILE = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(range(256)) * 8)
FRONTS = {"first": (), "after JFIF": (JFIF,), "after a profile and a comment": (JFIF, PROFILE, segment(0xFE, b"Exif"))}


def graph_orientations(files):
    return tf.function(exif.orientations)(tf.constant(files)).numpy().tolist()


def test_the_tag_is_found_wherever_it_stands():
    files, expected = [jpeg(), jpeg(JFIF)], [1, 1]
    for front in FRONTS.values():
        for value in range(1, 9):
            order = "<>"[value % 2]
            files.append(jpeg(*front, segment(0xE1, tiff(value, order, at=8 + 6 * (value % 3)))))
            expected.append(value)
    assert graph_orientations(files) == expected
    assert [exif.stored_orientation(file[:4096]) for file in files] == expected
    assert [Image.open(io.BytesIO(file)).getexif().get(0x0112, 1) for file in files] == expected


def test_what_is_no_orientation_changes_nothing():
    odd = [tiff(0, "<"), tiff(9, ">"), tiff(6, "<", kind=4), tiff(6, ">", tag=0x0113), tiff(6, "<")[:20], b"Exif\0\0"]
    odd += [tiff(6, "<")[:6] + b"II*\0" + b"\xff" * 4 + tiff(6, "<")[14:], b"Exif\0\0" + b"XX" + tiff(6, "<")[8:]]
    files = [jpeg(JFIF, segment(0xE1, content)) for content in odd]
    files += [b"", b"\xff\xd8", b"Exif\0\0" * 9, jpeg(JFIF)[:25]]
    files += [b"\xff\xd8\xff" + rest for rest in (b"\xe1\0\x20Exif\0\0", b"\xe0\0\0Exif\0\0")]
    assert graph_orientations(files) == [1] * len(files)
    assert [exif.stored_orientation(file) for file in files] == [1] * len(files)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two sources of the same 16 pictures: photographs of all orientations, and each upright as Pillow has it."""
    root = tmp_path_factory.mktemp("photos")
    for index in range(16):
        file = root / f"{index}.jpg"
        file.write_bytes(jpeg(JFIF, segment(0xE1, tiff(index % 8 + 1, "<")), seed=index) if index < 12 else jpeg(JFIF))
        ImageOps.exif_transpose(Image.open(file)).save(root / f"{index}.png")
    labels = np.arange(16) % 2
    names = ([f"{index}.{kind}" for index in range(16)] for kind in ("jpg", "png"))
    return [FileSource("made", ("a", "b"), str(root), paths, labels) for paths in names]


def test_all_of_a_picture_is_as_pillow_has_it(photos):
    for index in range(16):
        data, upright = (source.read(tf.constant([index], tf.int64)) for source in photos)
        whole = decode_window(data[0], exif.orientations(data)[0], lambda h, w: (0, 0, h, w), Decoding())
        np.testing.assert_array_equal(whole, tf.io.decode_png(upright[0], channels=3))


@pytest.mark.parametrize("augment", ["none", "inception"])
def test_every_view_is_that_of_the_upright_picture(photos, augment):
    """Of crops as well, of which the file has other rows and columns."""
    how = {"augment": augment, "image_size": 20, "threads": 2, "share": Share(0, 1)}
    order = SequentialOrder(examples=16, replica_batch=4, replicas=1)
    turned, upright = ([x for x, *_ in pipeline.validation_batches(s, order=order, **how)] for s in photos)
    np.testing.assert_array_equal(turned, upright)
    order = Order(examples=16, seed=3, replica_batch=4, replicas=1)
    turned, upright = (
        [x for x, *_ in pipeline.training_batches(s, order=order, start_step=0, **how).take(8)] for s in photos
    )
    np.testing.assert_array_equal(turned, upright)
    ignored = pipeline.training_batches(photos[0], order=order, start_step=0, **how, decoding=Decoding("ignore"))
    assert any((x.numpy() != u.numpy()).any() for (x, *_), u in zip(ignored.take(8), upright, strict=True))
