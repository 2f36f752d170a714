"""Photographs are turned upright by their orientation tag: wherever it stands, in training and after it alike."""

import io
import json
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
from conftest import run_jobs, summary
from PIL import Image, ImageOps
from trained import change_state, run_programs

from data import pipeline
from data.files.source import FileSource
from data.order import Order, SequentialOrder, Share
from data.pictures import exif
from data.pictures.decode import Decoding, decode_window
from data.pictures.orientation import may_be_turned, stored_orientation
from data.views import evaluation_images

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
    assert [stored_orientation(file[:4096]) for file in files] == expected
    assert [Image.open(io.BytesIO(file)).getexif().get(0x0112, 1) for file in files] == expected


def test_a_tag_beyond_the_first_bytes_counts_as_one_that_may_turn_the_picture():
    """Or whether it is turned would depend on the other pictures: only where none may be, nobody looks for tags."""
    far = b"Exif\0\0" + b"II*\0" + (5000).to_bytes(4, "little") + bytes(4992) + tiff(6, "<")[14:]
    files = [jpeg(segment(0xE1, far)), jpeg(JFIF, segment(0xE1, tiff(1, "<"))), jpeg(), jpeg(segment(0xE1, far))[:90]]
    assert graph_orientations(files) == [6, 1, 1, 1]
    assert [may_be_turned(file[:4096]) for file in files] == [True, False, False, False]


def test_what_is_no_orientation_changes_nothing():
    odd = [tiff(0, "<"), tiff(9, ">"), tiff(6, "<", kind=4), tiff(6, ">", tag=0x0113), tiff(6, "<")[:20], b"Exif\0\0"]
    odd += [tiff(6, "<")[:6] + b"II*\0" + b"\xff" * 4 + tiff(6, "<")[14:], b"Exif\0\0" + b"XX" + tiff(6, "<")[8:]]
    files = [jpeg(JFIF, segment(0xE1, content)) for content in odd]
    files += [b"", b"\xff\xd8", b"Exif\0\0" * 9, jpeg(JFIF)[:25]]
    files += [b"\xff\xd8\xff" + rest for rest in (b"\xe1\0\x20Exif\0\0", b"\xe0\0\0Exif\0\0")]
    assert graph_orientations(files) == [1] * len(files)
    assert [stored_orientation(file) for file in files] == [1] * len(files)


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


def test_every_view_is_that_of_the_upright_picture(photos):
    """Of crops as well, of which the file has other rows and columns."""
    turned, upright = photos
    upright.turned = 0
    how = {"image_size": 20, "threads": 2, "share": Share(0, 1)}
    order = SequentialOrder(examples=16, replica_batch=4, replicas=1)
    views = [[x for x, *_ in pipeline.validation_batches(s, order=order, augment="none", **how)] for s in photos]
    np.testing.assert_array_equal(*views)
    ignored = evaluation_images(turned, range(16), "none", 20, Decoding("ignore")).numpy()
    same = [(view == shown).all() for view, shown in zip(ignored, np.concatenate(views[0]), strict=True)]
    assert same == [index in (0, 8, 12, 13, 14, 15) for index in range(16)]
    order, how = Order(examples=16, seed=3, replica_batch=4, replicas=1), how | {"augment": "inception"}
    views = [[x for x, *_ in pipeline.training_batches(s, order=order, start_step=0, **how).take(8)] for s in photos]
    np.testing.assert_array_equal(*views)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """``plain``, and ``kept``: the same, made to look as of before there was a choice, gone on with for an epoch.

    The pictures differ by where they are bright once they are upright; in their files they do not.
    """
    folder = tmp_path_factory.mktemp("runs")
    for index in range(24):
        shown = np.full((16, 24, 3), 40 + index, np.uint8)
        shown[10:] += 150
        held = (3, 1, 6)[index % 3]
        place = folder / "photos" / ("above", "below", "left")[index % 3] / f"{index}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        options = Image.Exif()
        options[0x0112] = held
        Image.fromarray(shown).save(place, exif=options, quality=95)
    line = ["--dataset", "image_folder", "--data-dir", folder / "photos", "--image-size", "16", "--batch-size", "6"]
    line += ["--validation-split", "0.25", "--learning-rate", "0.02", "--warmup-epochs", "0"]
    line += ["--steps-per-call", "3"]
    codes = run_jobs(folder, {"plain": [*line, "--epochs", "16"]})
    assert codes == {"plain": 0}, (folder / "output.txt").read_text()
    (folder / "first.txt").write_text((folder / "output.txt").read_text())
    shutil.copytree(folder / "plain", folder / "kept", symlinks=True)

    def of_before(state):
        state["configuration"].pop("exif")
        state["record"]["pixels"] |= {"exif_orientation": "ignored"}
        state["record"]["pixels"].pop("precise")

    for checkpoint in (folder / "kept" / "checkpoints").glob("step-*"):
        change_state(checkpoint, of_before)
    codes = run_jobs(folder, {"kept": [*line, "--epochs", "17"]})
    assert codes == {"kept": 0}, (folder / "output.txt").read_text()
    picture = folder / "photos" / "above" / "0.jpg"
    names, last = ("plain", "kept"), ["--checkpoint", "last"]
    lines = {n: ["predict", folder / n, picture, *last, "--out", folder / f"{n}.csv"] for n in names}
    run_programs(folder / "programs", lines)
    return folder


def test_training_sees_pictures_upright_and_says_so(runs):
    assert "note: 16 photographs have an orientation tag (EXIF), by which they are turned upright" in (
        runs / "first.txt"
    ).read_text()
    assert summary(runs / "plain")["final"]["val_accuracy"] == 1
    # Ignored, the pictures of all classes are the same.
    assert summary(runs / "kept")["final"]["val_accuracy"] < 0.8


def test_a_run_of_before_goes_on_as_it_began(runs):
    said, output = {}, (runs / "output.txt").read_text()
    for name in ("plain", "kept"):
        said[name] = json.loads((runs / name / "labels.json").read_text())["pixels"]
    assert said["plain"]["exif_orientation"].startswith("applied") and said["plain"]["precise"]
    assert said["kept"]["exif_orientation"] == "ignored" and not said["kept"]["precise"]
    assert "default DCT" in said["kept"]["decoder"] and "INTEGER_ACCURATE DCT" in said["plain"]["decoder"]
    assert output.count("this run began with --exif ignore and keeps it") == 1
    assert "was --exif" not in output


def test_prediction_sees_what_the_run_has_seen(runs):
    rows = {name: (runs / f"{name}.csv").read_text().splitlines()[1] for name in ("plain", "kept")}
    assert ",above," in rows["plain"]
    assert float(rows["plain"].split(",")[2]) > 0.9 > float(rows["kept"].split(",")[2])
