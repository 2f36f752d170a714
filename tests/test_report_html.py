"""report.html: one file that is sound HTML, shows what the run's files hold, and believes none of them."""

import base64
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from launch.comparison import page as page_module
from launch.comparison.curves import COLOURS, DARK_COLOURS
from launch.comparison.page import page
from launch.comparison.runs import read_runs
from launch.comparison.svg import MOST_POINTS

VOID = {"meta", "img"}  # elements without an end
HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "a&amp;b", "' onload='x", "</style>", "$x$"]
HOSTILE += ["\x1b[31mred\u202etxt", "</title><h1>", "", "日本 Straße"]
PNG = b"\x89PNG\r\n\x1a\n" + b"a picture"


class Page(HTMLParser):
    """The elements of a page, and the text of it; not sound: ``AssertionError``."""

    def __init__(self, content: str):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.words, self.cells = [], [], [], []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names))
        self.elements.append((tag, dict(attributes), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes, _ in self.elements if name == tag]


def written(folder: Path, epochs: int = 3, *, classes=("cat", "dog"), settings: dict | None = None) -> Path:
    """A run directory with all files that a page reads, by hand."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"epochs": epochs} | (settings or {})))
    with open(folder / "metrics.csv", "w") as file:
        file.write("epoch,step,loss,accuracy,val_loss,val_accuracy,learning_rate,images_per_second,seconds\n")
        for i in range(1, epochs + 1):
            file.write(f"{i},{10 * i},{2 / i:.7g},{1 - 1 / i:.7g},{2.5 / i:.7g},{0.9 - 0.5 / i:.7g},0.01,1234.5,0.5\n")
    split = {"scheme": "split", "bytes": 1_500_000, "allreduce_bytes": 9_000_000, "seconds": 0.002}
    last = {"loss": 2 / epochs, "val_accuracy": 0.9 - 0.5 / epochs}
    summary = {"final": last, "best": {"epoch": epochs} | last, "steps": 10 * epochs, "stopped_by": "epochs"}
    summary |= {"replicas": 2, "world_size": 2, "strategy": "horovod", "exchange": {"fc6": split}}
    summary |= {"weights_sha256": "ab" * 32, "versions": {"python": "3.11.7"}, "seconds": 12.5, "parameters": 1000}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "labels.json").write_text(json.dumps({"classes": classes, "lockstep": "0.2.0"}))
    calibration = {"reduce": {"latency": 0.001, "per_unit": 2e-9}, "gather": {"latency": 0.002, "per_unit": 3e-9}}
    (folder / "exchange.json").write_text(json.dumps({"calibration": calibration}))
    place = folder / "evaluation-test"
    place.mkdir()
    confused = [{"true": name, "predicted": classes[0], "count": 7, "share": 0.07} for name in classes[1:]]
    metrics = {"examples": 1003, "loss": 0.4321, "accuracy": 0.8765, "accuracy_95_interval": [0.85, 0.9]}
    (place / "metrics.json").write_text(json.dumps(metrics | {"most_confused": confused}))
    with open(place / "per_class.csv", "w", newline="") as file:
        csv.writer(file).writerows([["class", "count", "recall"], *([name, 10, 0.123456] for name in classes)])
    for name in ("confusion.png", "worst.png"):
        (place / name).write_bytes(PNG)
    return folder


def shown(*folders: Path) -> tuple[str, Page]:
    content = page(read_runs(folders))
    return content, Page(content)


@pytest.fixture(params=(1, 3))
def folders(request, tmp_path) -> list[Path]:
    return [written(tmp_path / f"run{i}", settings={"seed": i}) for i in range(request.param)]


def test_the_page_is_sound_and_accessible(folders):
    _, found = shown(*folders)
    ids = [attributes["id"] for _, attributes, _ in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in found.all("a")} <= set(ids)
    assert len(found.all("h1")) == len(found.all("main")) == 1
    assert len([tag for tag, _, parents in found.elements if tag == "title" and parents[-1] == "head"]) == 1
    assert found.all("html")[0]["lang"] == "en"
    assert all(len(image["alt"]) > 20 for image in found.all("img"))
    assert all(len(chart["aria-label"]) > 20 and chart["role"] == "img" for chart in found.all("svg"))
    assert all(cell["scope"] in ("col", "row") for cell in found.all("th"))
    assert len(found.all("table")) == len(found.all("caption")) > 0
    sections = [attributes["id"] for attributes in found.all("section")]
    assert sections == ["results", "curves", "settings", "evaluation", "timing", "environment", "repeat"]


def test_the_page_asks_for_nothing_outside_of_itself(folders):
    content, found = shown(*folders)
    assert not {tag for tag, _, _ in found.elements} & {"script", "link", "iframe", "object", "base", "form"}
    assert all(image["src"].startswith("data:image/png;base64,") for image in found.all("img"))
    assert "url(" not in content and "@import" not in content and not re.search(r"https?:", content)
    (policy,) = [meta["content"] for meta in found.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def test_the_page_shows_what_the_files_hold(folders):
    content, found = shown(*folders)
    for expected in ("0.7333", "8765", "0.8500 to 0.9000", "1,003", "0.1235", "7.0%", "abababab", "3.11.7", "0.2.0"):
        assert any(expected in cell for cell in found.cells), expected
    for expected in ("split", "1.5", "9", "2", "1 ms", "2 ms per MB", "3 ms per MB"):  # the exchange
        assert expected in found.cells, expected
    images = [base64.b64decode(image["src"].partition(",")[2]) for image in found.all("img")]
    assert images == [PNG] * 2 * len(folders)
    commands = "".join(found.words)
    for i, folder in enumerate(folders):
        assert f"horovodrun -np 2 python launch/train.py --config {folder}/config.yaml" in commands
        assert i == 0 or f"--seed {i}" in commands


def test_every_point_of_the_curves_has_its_value(folders):
    _, found = shown(*folders)
    hovered = [word for word in found.words if re.search(r", epoch \d+: ", word)]
    for i in range(1, 4):
        for value in (2 / i, 1 - 1 / i, 2.5 / i, 0.9 - 0.5 / i):
            said = [word for word in hovered if word.endswith(f", epoch {i}: {float(f'{value:.7g}'):.6g}")]
            assert len(said) >= len(folders)
    assert len(found.all("circle")) == len(hovered) == 6 * 3 * len(folders)


def test_nothing_from_a_file_becomes_markup(tmp_path):
    name = "<b>&'run"
    settings = {"model": "</pre><script>alert(3)</script>.py:f", "<i>other": HOSTILE[1], "run_dir": HOSTILE[0]}
    run = written(tmp_path / name, classes=HOSTILE, settings=settings)
    summary = json.loads((run / "summary.json").read_text())
    summary |= {"stopped_by": HOSTILE[0], "versions": {HOSTILE[1]: HOSTILE[0]}}
    summary |= {"exchange": {HOSTILE[0]: {"scheme": HOSTILE[1]}}}
    summary |= {"weights_sha256": HOSTILE[0], "parameters": HOSTILE[1], "strategy": HOSTILE[4]}
    summary["final"] = {HOSTILE[0]: 1.0, "loss": HOSTILE[1]}
    (run / "summary.json").write_text(json.dumps(summary))
    table = (run / "metrics.csv").read_text().replace("accuracy", "<img src=x>")
    (run / "metrics.csv").write_text(table)
    (run / "evaluation-test").rename(run / "evaluation-<u>")
    plain = written(tmp_path / "plain")
    for folders in ([run], [run, plain]):
        content, found = shown(*folders)
        _, reference = shown(*([plain] * 1 if len(folders) == 1 else [plain, written(tmp_path / "plain2")]))
        assert {tag for tag, _, _ in found.elements} <= {tag for tag, _, _ in reference.elements}
        assert not any(key.startswith("on") for _, attributes, _ in found.elements for key in attributes)
        assert all(image["src"].startswith("data:") for image in found.all("img"))
        assert len(found.all("h1")) == 1
        said = "".join(found.words)
        for expected in (name, *HOSTILE[:2], "a&amp;b", "日本 Straße"):
            assert expected in said
        assert "\x1b" not in content and "\u202e" not in content


def test_a_run_that_has_next_to_nothing(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("epochs: 2\n")
    _, found = shown(tmp_path / "run")
    assert [attributes["id"] for attributes in found.all("section")] == ["results", "curves", "settings", "repeat"]
    assert "not finished" in "".join(found.words)


def test_values_that_are_no_numbers_are_shown_and_not_drawn(tmp_path):
    run = written(tmp_path / "run")
    lines = (run / "metrics.csv").read_text().splitlines()
    lines[2] = "2,20,nan,,inf,0.5,0.01,0,0.5"
    (run / "metrics.csv").write_text("\n".join(lines) + "\n")
    (run / "evaluation-test" / "metrics.json").write_text('{"loss": NaN, "accuracy": null, "most_confused": [3]}')
    content, found = shown(run)
    assert "nan" in found.cells and "inf" in found.cells and "–" in found.cells
    charts = "".join(re.findall("<svg.*?</svg>", content, re.DOTALL))
    assert "nan" not in charts and "inf" not in charts
    assert len(found.all("circle")) == 6 * 3 - 3


def test_long_runs_stay_small(tmp_path):
    content, found = shown(*(written(tmp_path / str(i), epochs=5000) for i in range(2)))
    charts = re.findall("<svg.*?</svg>", content, re.DOTALL)
    assert sum(map(len, charts)) < 600_000
    assert max(chart.count("<circle") for chart in charts) <= 2 * (MOST_POINTS + 1)
    assert len([word for word in found.words if "epoch 5000: " in word]) == 6 * 2  # the last is always there


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_are_told_from_the_page_light_and_dark():
    sheet = Path(page_module.__file__).with_name("report.css").read_text()
    themes = [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in sheet.split("@media screen")[:2]]
    assert len(themes) == 2
    for theme, colours in zip(themes, (COLOURS, DARK_COLOURS), strict=True):
        for ground in (theme["paper"], theme["panel"]):
            assert all(contrast(theme[name], ground) >= 4.5 for name in ("ink", "faint", "link"))
            assert all(contrast(colour, ground) >= 3 for colour in colours)
        assert contrast(theme["ink"], theme["best"]) >= 4.5
