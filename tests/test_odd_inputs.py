"""Whatever lies on a disk is trained on, with its classes printed, or refused with one sentence; never a traceback."""

import io
import os
import random

import pytest
from layouts import folder, put
from odd_data import make, picture
from PIL import Image

from data import DatasetConfig, load
from data.datasets import DataError
from data.diagnose import diagnose
from data.splits import test_place as place_of_test
from launch.job.arguments import parse_arguments
from launch.job.config import ConfigError, TrainConfig
from launch.job.logs.header import SHOWN, class_counts
from launch.job.preparation.batch_plan import create_batch_plan

FORMATS = {"JPEG", "PNG", "GIF", "BMP"}
# Of which one stands in each refusal: what is expected, or what to do.
REMEDIES = (
    "expected", "replace or remove", "point --data-dir at", "use a smaller split", "pass --classes",
    "labels start at 0", "columns a, b, not in 1", "paths are relative to the table",
)  # fmt: skip


def opened(dataset, place, how) -> tuple[int, str]:
    """The exit code of the stages that look at data, and what they print."""
    try:
        train, validation = load(DatasetConfig(dataset, str(place), **how))
        fingerprints = [source.fingerprint() for source in (train, validation) if source]
        create_batch_plan(TrainConfig(batch_size=1), examples=len(train), replicas=1)
        held_out = place_of_test(dataset, str(place))
    except (DataError, ConfigError) as error:
        return 2, str(error)
    assert all(len(fingerprint) == 64 for fingerprint in fingerprints)
    counts = class_counts(train, validation)
    for name in train.classes[:SHOWN]:
        assert f"{name} " in counts
    assert counts.endswith(f" and {len(train.classes) - SHOWN} more") == (len(train.classes) > SHOWN), counts
    assert len(set(train.classes)) == len(train.classes) and len(train.classes) > 1
    assert train.labels.min() >= 0 and train.labels.max() < len(train.classes)
    for source in (train, validation):
        for index in range(len(source) if source else 0):
            if source.encoded:
                # Of what nobody can take for a picture nothing may be left in a set that is trained on.
                with Image.open(os.fsencode(source.where(index))) as image:
                    assert image.format in FORMATS, image
            if fault := diagnose(source, [index]):
                assert fault.isprintable() and "InvalidArgumentError" not in fault
    return 0, f"{counts}; {train.note}; {held_out}"


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.thorough) for part in range(1, 5))])
def test_whatever_lies_there_is_read_or_refused_in_a_sentence(tmp_path, part):
    """Sets of random parts: splits in all names, classes of odd names, nested, litter, broken files, odd labels."""
    codes = {}
    for number in range(60 * part, 60 * part + 60):
        dataset, place, how = make(number, tmp_path / str(number))
        try:
            codes[number], said = opened(dataset, place, how)
        except Exception as error:
            raise AssertionError(f"set {number}, {dataset} {place}") from error
        said.encode("utf-8", "strict")
        assert codes[number] == 0 or any(word in said for word in REMEDIES), (number, said)
    assert set(codes.values()) == {0, 2}


def saved(kind, **how) -> bytes:
    content = io.BytesIO()
    Image.open(io.BytesIO(picture(random.Random(1)))).save(content, kind, **how)
    return content.getvalue()


def test_a_set_like_kaggles_cats_and_dogs_has_its_two_empty_files_named_and_the_rest_read(tmp_path):
    """Thumbs.db, JPEGs without JFIF, with bytes too many before or after their end, a BMP by the name of a JPEG."""
    root, jpeg = tmp_path / "set" / "PetImages", saved("JPEG")
    put(root, *(f"{name}/{number}.jpg" for name in ("Cat", "Dog") for number in range(3)), content=jpeg)
    put(root, "Cat/Thumbs.db", "Dog/Thumbs.db", "../readme[1].txt", content=b"x")
    put(root, "Cat/nojfif.jpg", content=jpeg[:2] + jpeg[4 + int.from_bytes(jpeg[4:6], "big") :])
    put(root, "Dog/extraneous.jpg", content=jpeg[:-2] + bytes(range(1, 200)) + jpeg[-2:])
    put(root, "Dog/tail.jpg", content=jpeg + bytes(65))
    put(root, "Cat/10073.jpg", content=saved("BMP"))
    put(root, "Cat/666.jpg", "Dog/11702.jpg", content=b"")
    how = {"seed": 0, "validation_split": 0.1}
    code, said = opened("image_folder", tmp_path / "set", how)
    assert code == 2 and f"point --data-dir at {root}" in said
    code, said = opened("image_folder", root, how)
    assert code == 2 and said.startswith("2 of 12 files cannot be pictures")
    assert all(f"{name}: is empty" in said for name in ("Cat/666.jpg", "Dog/11702.jpg"))
    for name in ("Cat/666.jpg", "Dog/11702.jpg"):
        (root / name).unlink()
    train, _ = folder(root)
    assert len(train) == 10 and not any(diagnose(train, [index]) for index in range(10))


def test_gif_and_bmp_among_the_jpegs_are_read(tmp_path):
    put(tmp_path, "cat/1.jpg", "dog/1.jpg", content=saved("JPEG"))
    second = Image.new("RGB", (5, 5))
    put(tmp_path, "cat/a.gif", content=saved("GIF", save_all=True, append_images=[second], duration=100))
    put(tmp_path, "dog/b.bmp", content=saved("BMP"))
    train, _ = folder(tmp_path)
    assert len(train) == 4 and not any(diagnose(train, [index]) for index in range(4))


def test_classes_of_one_picture_stay_in_training_and_numbers_keep_their_order(tmp_path):
    put(tmp_path, *(f"{name}/{number}.jpg" for name in range(12) for number in range(1 if name > 9 else 3)))
    train, validation = folder(tmp_path, validation_split=0.1)
    assert train.classes == validation.classes == tuple(map(str, range(12)))
    assert (len(train), len(validation)) == (22, 10) and "each of the classes 10, 11 has one example" in train.note


def test_accents_of_macos_and_of_others_are_one_name(tmp_path):
    put(tmp_path, "train/caf\u00e9/1.jpg", "train/dog/1.jpg", "val/cafe\u0301/1.jpg", "val/dog/1.jpg")
    train, validation = folder(tmp_path)
    assert validation.classes == train.classes == ("caf\u00e9", "dog") and validation.labels.tolist() == [0, 1]
    assert train.note is None


def test_an_archive_is_to_be_unpacked(tmp_path):
    put(tmp_path, "photos.zip", content=b"PK")
    with pytest.raises(DataError, match="photos.zip is a file: expected a folder; unpack it"):
        folder(tmp_path / "photos.zip")


def test_names_that_are_not_utf_8_are_refused_or_read(tmp_path):
    put(tmp_path / "set", "cat/1.jpg", "dog/1.jpg", os.fsdecode(b"dog/caf\xe9.jpg"))
    assert len(folder(tmp_path / "set").train) == 3
    put(tmp_path / "set", os.fsdecode(b"\xe9/1.jpg"))
    for root in (tmp_path / "set", tmp_path / os.fsdecode(b"caf\xe9")):
        code, said = opened("image_folder", root, {"seed": 0, "validation_split": 0})
        assert code == 2 and "\\udce9 has bytes that are not UTF-8: expected a name in UTF-8; rename it" in said
    put(tmp_path / "set", os.fsdecode(b"\xe9/2.jpg"), content=b"")
    said = str(pytest.raises(DataError, folder, tmp_path / "set", classes=("cat", "dog", os.fsdecode(b"\xe9"))).value)
    assert said.encode()
    with pytest.raises(ConfigError, match="--data-dir is .*expected a name in UTF-8"):
        parse_arguments(["--data-dir", os.fsdecode(b"caf\xe9")], program="train.py", description="")


def test_a_pipe_in_place_of_a_picture_is_not_waited_for(tmp_path):
    put(tmp_path, "cat/1.jpg", "dog/1.jpg")
    os.mkfifo(tmp_path / "cat" / "2.jpg")
    with pytest.raises(DataError, match="cat/2.jpg: is no regular file"):
        folder(tmp_path)
