"""The pictures of an evaluation, and what TensorBoard is given of it."""

import tracemalloc
import warnings

import numpy as np
import pytest
from google.protobuf import text_format
from matplotlib.colors import to_rgba
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector import ProjectorConfig

from launch.evaluation import confusion, projector, sheet, tensorboard
from launch.evaluation.lettering import fitted, font
from launch.evaluation.sheet import Tile, letterboxed

ODD = "a $very$ long\nname, with_under^scores \udcff 猫 and no end to it whatever one does about it"


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def matrix(c, seed=0):
    found = np.random.default_rng(seed).integers(0, 3, (c, c))
    found[np.arange(c), np.arange(c)] += 10
    return found.astype(np.int64)


@pytest.mark.parametrize("c", [2, 10, 26, 111, 1000, 1500])
def test_confusion_is_drawn_at_any_number_of_classes_and_with_odd_names(tmp_path, c):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = [ODD, *(f"class {index}" for index in range(1, c))]
        for name in ("a.png", "b.png"):
            confusion.draw(tmp_path / name, matrix(c), names, "a title that is too long to fit above " * 9)
    height, width = pixels_of(tmp_path / "a.png").shape[:2]
    assert 500 < height < 2000 and 600 < width < 2600
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("c", [111, 1000])
def test_one_mistake_among_many_classes_has_a_pixel_of_its_own(tmp_path, c):
    found = np.diag(np.full(c, 50))
    names = [str(index) for index in range(c)]
    confusion.draw(tmp_path / "none.png", found, names, "")
    found[c // 3, 7], found[c // 3, c // 3] = 1, 49
    confusion.draw(tmp_path / "one.png", found, names, "")
    none, one = (pixels_of(tmp_path / name).astype(int) for name in ("none.png", "one.png"))
    matrix_only = slice(0, none.shape[1] - confusion.PANEL - confusion.LEGEND)
    changed = np.abs(one - none).max(axis=2)[:, matrix_only]
    cell = confusion.SEPARATE // c
    assert (changed > 30).sum() == cell * cell  # the diagonal's own shade changes by less


def test_many_classes_are_merged_into_the_darkest_colours_and_never_coloured_one_by_one():
    c = 1300
    found = matrix(c) * np.random.default_rng(1).integers(0, 2, (c, c))
    found[5:9] = found[40] = 0
    shares, (right, wrong), own = confusion.row_shares(found), confusion._colours(), np.arange(c)
    each = wrong.to_rgba(shares)
    each[own, own] = right.to_rgba(np.diag(shares))
    each[np.isnan(shares)] = to_rgba(confusion.MISSING)
    starts = np.unique(np.arange(confusion.SEPARATE) * c // confusion.SEPARATE)
    expected = np.minimum.reduceat(np.minimum.reduceat(each, starts, axis=0), starts, axis=1)
    assert np.array_equal(confusion._pixels(found), expected)
    large = matrix(3000)
    tracemalloc.start()
    confusion._pixels(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * large.nbytes  # colours alone would take 4 times as much


def test_shares_are_those_of_the_true_class():
    shares = confusion.row_shares(np.array([[3, 1], [0, 0]]))
    assert shares[0].tolist() == [0.75, 0.25] and np.isnan(shares[1]).all()


def test_matplotlibs_settings_and_figures_stay_as_they_were(tmp_path):
    import matplotlib
    from matplotlib import pyplot

    before, figures = dict(matplotlib.rcParams), pyplot.get_fignums()
    confusion.draw(tmp_path / "a.png", matrix(3), "abc", "")
    assert dict(matplotlib.rcParams) == before and pyplot.get_fignums() == figures


@pytest.mark.parametrize("keep", ["start", "end"])
@pytest.mark.parametrize("text", [ODD, "W" * 200, "i" * 200, "short", ""])
def test_text_fits_its_width_and_shows_as_much_as_it_can(text, keep):
    letters = font(14)
    found = fitted(text, 160, letters, keep)
    assert letters.getlength(found) <= 160 and "\n" not in found
    if text in ("short", ""):
        assert found == text
    else:
        assert found.startswith("…") if keep == "end" else found.endswith("…")
        assert letters.getlength(found) > 125


def test_tiny_pictures_are_enlarged_with_sharp_pixels():
    tiny = np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    found = np.asarray(letterboxed(tiny, 160))
    np.testing.assert_array_equal(found[:, 40:120], tiny.repeat(5, axis=0).repeat(5, axis=1))
    assert (found[:, :40] == found[0, 0]).all() and (found[:, 120:] == found[0, 0]).all()


@pytest.mark.parametrize(("height", "width"), [(300, 600), (600, 300), (120, 90), (160, 160), (1, 2000), (2000, 1)])
def test_other_pictures_are_whole_and_in_proportion(height, width):
    picture = np.zeros((height, width, 3), np.uint8)
    seen = (np.asarray(letterboxed(picture, 160)) == 0).all(axis=2)
    rows, columns = seen.any(axis=1).sum(), seen.any(axis=0).sum()
    longer = max(height, width)
    assert (rows, columns) == (max(1, round(160 * height / longer)), max(1, round(160 * width / longer)))


def plain(index):
    return np.full((32, 32, 3), index % 200, np.uint8)


@pytest.mark.parametrize("mistaken", [None, ODD])
def test_no_letter_of_a_sheet_leaves_its_tile(tmp_path, mistaken):
    tiles = [Tile(index, ODD, mistaken, 0.99999, f"folder/{ODD}/{'9' * 90}.jpg") for index in range(9)]
    sheet.draw(tmp_path / "a.png", tiles, plain, "title " * 90)
    found = pixels_of(tmp_path / "a.png")
    step = sheet.PICTURE + sheet.GAP
    for column in range(8):
        gap = slice(sheet.MARGIN + column * step + sheet.PICTURE, sheet.MARGIN + (column + 1) * step)
        assert (found[sheet.TITLE :, gap] == 255).all(), column
    assert (found[:, : sheet.MARGIN] == 255).all() and (found[:, -sheet.MARGIN :] == 255).all()
    assert (found[sheet.TITLE : sheet.TITLE + sheet.PICTURE, sheet.MARGIN + 3 * step] == 3).all()


def test_a_sheet_stops_at_its_limit_and_says_so(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(sheet, "MOST", 10)
    monkeypatch.setattr(sheet, "_write_title", lambda pen, title, room: titles.append(title))
    drawn = []
    tiles = [Tile(index, "cat", None, 0.5, "a.jpg") for index in range(12)]
    sheet.draw(tmp_path / "a.png", tiles, lambda index: drawn.append(index) or plain(index), "pictures")
    assert titles == ["pictures (the first 10 of 12)"] and drawn == list(range(10))


def test_a_sheet_without_pictures_is_its_title(tmp_path):
    sheet.draw(tmp_path / "a.png", [], plain, "no mistakes in 12 pictures")
    assert pixels_of(tmp_path / "a.png").shape[0] == sheet.TITLE


@pytest.mark.parametrize(("probability", "words"), [(1, "100.0%"), (0.99996, ">99.9%"), (0.9994, "99.9%"), (0, "0.0%")])
def test_only_certainty_is_100_percent(probability, words):
    assert sheet.percent(probability) == words


def test_the_projector_gets_a_row_and_a_thumbnail_for_each_point(tmp_path):
    indices, features = np.arange(5) * 10, np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    columns = {"label": ["a\tb", "", "c\nd", ODD, "e"], "path": [f"{index}.jpg" for index in indices]}
    projector.write(tmp_path / "evaluation", indices, features, columns, plain)
    folder = tmp_path / "evaluation"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig()).embeddings[0]
    found = np.fromfile(folder / config.tensor_path, "<f4").reshape(config.tensor_shape)
    np.testing.assert_array_equal(found, features)
    rows = [line.split("\t") for line in (folder / config.metadata_path).read_text().split("\n")]
    assert rows[:4] == [["label", "path"], ["a b", "0.jpg"], [" ", "10.jpg"], ["c d", "20.jpg"]]
    assert len(rows) == 7 and rows[6] == [""]
    sprite, (width, height) = pixels_of(folder / config.sprite.image_path), config.sprite.single_image_dim
    assert sprite.shape == (3 * height, 3 * width, 3)
    assert [int(sprite[n // 3 * height + 9, n % 3 * width + 9, 0]) for n in range(6)] == [0, 10, 20, 30, 40, 255]
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("n", [1, 4096, 4097, 50000])
def test_the_projectors_sample_is_even_and_fits_a_browsers_texture(n):
    found = projector.sampled(n)
    assert len(found) == min(n, projector.MOST) and found[0] == 0 and found[-1] < n
    steps = np.diff(found)
    assert n == 1 or (steps.min() >= 1 and steps.max() - steps.min() <= 1)
    assert np.ceil(np.sqrt(projector.MOST)) * projector.THUMBNAIL <= 8192


def test_tensorboard_shows_the_very_pictures(tmp_path):
    sheet.draw(tmp_path / "worst.png", [Tile(3, "cat", "dog", 0.9, "a.jpg")], plain, "mistakes")
    tensorboard.add_images(tmp_path / "evaluation", {"worst": tmp_path / "worst.png"}, step=4)
    events = EventAccumulator(str(tmp_path / "evaluation"), size_guidance={"tensors": 0})
    events.Reload()
    (event,) = events.Tensors("worst")
    width, height, png = event.tensor_proto.string_val
    (tmp_path / "read.png").write_bytes(png)
    np.testing.assert_array_equal(pixels_of(tmp_path / "read.png"), pixels_of(tmp_path / "worst.png"))
    assert event.step == 4
