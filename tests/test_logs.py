"""What a run leaves besides checkpoints: tables that a spreadsheet has saved, networks that cannot be written down."""

import csv
from types import SimpleNamespace

import keras
import pytest

from distributed.health import heartbeat
from launch.job.logs import report
from launch.job.logs.console import Console
from launch.job.logs.epochs import EpochTable
from launch.job.logs.times import TimesTable
from launch.job.timing.epoch_clock import PARTS
from launch.trained import record as records

# How a spreadsheet may save a table: as its cells stay, or as they do not.
KEPT = {"a mark first": ("utf-8-sig", ",", "."), "as it was": ("utf-8", ",", ".")}
LOST = {
    "semicolons": ("utf-8", ";", "."),
    "semicolons and decimal commas": ("utf-8-sig", ";", ","),
    "decimal commas": ("utf-8", ",", ","),
    "UTF-16": ("utf-16", "\t", "."),
}
METRICS = {"loss": 0.25, "val_loss": 0.5, "accuracy": 0.75, "val_accuracy": 0.5}
EPOCH = {"step": 7, "metrics": METRICS, "learning_rate": 0.125, "seconds": 2.5, "images_per_second": 1.5}


def tables(folder):
    console = Console(True)
    return [EpochTable(folder / "metrics.csv", console, ()), TimesTable(folder / "times.csv", console)]


def end_epoch(observers, number):
    ranks = [SimpleNamespace(host="node0", seconds=dict.fromkeys(PARTS, 0.5))]
    for observer in observers:
        observer.end_epoch(SimpleNamespace(**EPOCH, number=number, ranks=ranks))


def epochs_in(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def save_as(path, encoding, separator, point):
    with open(path, newline="", encoding="utf-8") as file:
        rows = [[cell.replace(".", point) for cell in row] for row in csv.reader(file)]
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows(rows)


@pytest.fixture
def trained(tmp_path):
    observers = tables(tmp_path)
    for observer in observers:
        observer.begin(0, 0)
    end_epoch(observers, 1)
    assert epochs_in(tmp_path / "metrics.csv") == epochs_in(tmp_path / "times.csv") == [1]
    return tmp_path


@pytest.mark.parametrize("saved", [*KEPT, *LOST])
def test_a_run_goes_on_where_a_spreadsheet_has_saved_its_tables(trained, capsys, saved):
    names = ("metrics.csv", "times.csv")
    for name in names:
        save_as(trained / name, *(KEPT | LOST)[saved])
    content = {name: (trained / name).read_bytes() for name in names}
    observers = tables(trained)
    for observer in observers:
        observer.begin(7, 1)
    end_epoch(observers, 2)
    for name in names:
        assert epochs_in(trained / name) == ([1, 2] if saved in KEPT else [2])
    warnings = capsys.readouterr().err.splitlines()
    if saved in KEPT:
        assert not warnings and not [*trained.glob("*.old")]
        return
    for name, warning in zip(names, warnings, strict=True):
        assert warning.startswith(f"warning: {trained}/{name} is not as a run writes it")
        assert warning.endswith(f"it is now {name}.old, and a new one begins; training goes on")
        assert (trained / f"{name}.old").read_bytes() == content[name]


@pytest.mark.parametrize("saved", [*KEPT, *LOST])
def test_a_run_ends_where_a_spreadsheet_has_saved_its_table(trained, capsys, saved):
    save_as(trained / "metrics.csv", *(KEPT | LOST)[saved])
    summary = {"stopped_by": "epochs", "best": {}, "seconds": 1.0}
    before = heartbeat._record.beats
    assert report.leave(summary, trained, "val_loss", Console(True))
    assert heartbeat._record.beats > before  # drawing takes its time
    assert (trained / "curves.png").exists() == (saved in KEPT)
    warnings = capsys.readouterr().err.splitlines()
    assert [f"{trained}/metrics.csv is not as a run writes it" in line for line in warnings] == [True] * (saved in LOST)


def test_columns_that_people_add_or_remove_end_no_run(trained):
    with open(trained / "metrics.csv", "w") as file:
        file.write("epoch,val_loss,mine\n1,0.5,3\n")
    (trained / "times.csv").write_text("epoch,rank,host,mine\n1,0,node0,3\n")
    report.draw_curves(trained / "metrics.csv", trained / "curves.png")
    for observer in tables(trained):
        observer.begin(7, 1)
    assert epochs_in(trained / "metrics.csv") == epochs_in(trained / "times.csv") == [1]
    assert "mine" not in (trained / "times.csv").read_text()


class Silent(keras.layers.Layer):
    """A layer that cannot say how it was made."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def call(self, images):
        return images

    def get_config(self):
        raise self.error("no config")


@pytest.mark.parametrize("error", [AttributeError, KeyError, RuntimeError, OSError, ValueError])
def test_a_layer_that_cannot_be_written_down_costs_model_json_alone(tmp_path, capsys, error):
    images = keras.Input((4, 4, 3))
    record = records.Record(
        classes=("a", "b"), image_size=4, pixels={}, outputs=records.LOGITS, model="own", model_sha256="0",
        dataset="own", data_sha256="0", versions={},
    )  # fmt: skip
    report.keep_record(record, keras.Model(images, Silent(error)(images)), tmp_path, Console(True))
    assert [path.name for path in tmp_path.iterdir()] == [records.FILE] and capsys.readouterr().err == ""
    report.keep_record(record, keras.Model(images, keras.layers.Flatten()(images)), tmp_path, Console(True))
    assert {path.name for path in tmp_path.iterdir()} == {records.FILE, report.MODEL}
