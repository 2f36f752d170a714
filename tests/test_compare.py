"""launch/compare.py: what differs between runs and what came out of them, from their files alone."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, run_command, run_jobs, summary
from rights import rights

from launch import compare
from launch.comparison import curves, repeat
from launch.comparison.differences import outcome_rows, same_weights, settings_rows
from launch.comparison.files import ComparisonError
from launch.comparison.runs import label, read_runs
from launch.job import config as config_module
from launch.job.arguments import parse_arguments
from launch.job.config import TrainConfig
from launch.job.run_directory import lock

LINE = "--global-batch-size 32 --micro-batch-size 16 --epochs 3 --steps-per-epoch 4 --deterministic --log-every-steps 2"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_data) -> Path:
    """A folder of two runs, ``one`` and ``other``, and of ``two``, which is the first as two ranks would leave it."""
    folder = tmp_path_factory.mktemp("runs")
    line = [*LINE.split(), "--dataset", "npz", "--data-dir", str(tiny_data)]
    other = ["--learning-rate", "0.1", "--metrics", "accuracy,top5"]
    assert run_jobs(folder, {"one": line, "other": [*line, *other]}) == {"one": 0, "other": 0}
    shutil.copytree(folder / "one", folder / "two", symlinks=True)
    ranks = {"strategy": "horovod", "world_size": 2, "replicas": 2}
    (folder / "two" / "summary.json").write_text(json.dumps(summary(folder / "one") | ranks))
    return folder


@pytest.fixture
def copies(runs, tmp_path, monkeypatch) -> Path:
    """The same runs, to be damaged, in the working directory."""
    for name in ("one", "two", "other"):
        shutil.copytree(runs / name, tmp_path / name, symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def rows(found) -> dict[str, tuple[str, ...]]:
    return {row.name: row.cells for row in found}


def test_only_settings_that_differ_are_shown_with_the_defaults_filled_in(copies):
    settings = yaml.safe_load((copies / "one" / "config.yaml").read_text())
    del settings["momentum"], settings["schedule"]  # as a file of an older version
    (copies / "one" / "config.yaml").write_text(yaml.safe_dump(settings))
    found = rows(settings_rows(read_runs([Path("one"), Path("other")])))
    assert found == {"learning_rate": ("0.002", "0.1"), "metrics": ("accuracy", "accuracy,top5")}
    assert settings_rows(read_runs([Path("one"), Path("two")])) == []


def test_what_came_out_is_what_the_summaries_say(runs):
    names = ("one", "two", "other")
    read, facts = read_runs([runs / name for name in names]), [summary(runs / name) for name in names]
    found = rows(outcome_rows(read))
    for metric in ("loss", "accuracy", "val_loss", "val_accuracy"):
        for when in ("best", "final"):
            assert found[f"{when} {metric}"] == tuple(f"{fact[when][metric]:.4f}" for fact in facts)
    assert found["best val_top5"] == ("–", "–", f"{facts[2]['best']['val_top5']:.4f}")
    assert found["best epoch"] == tuple(str(fact["best"]["epoch"]) for fact in facts)
    assert found["epochs"] == ("3 of 3",) * 3
    assert found["steps"] == ("12",) * 3
    assert found["workers"] == ("1 single", "2 horovod", "1 single")
    assert found["weights"] == tuple(fact["weights_sha256"][:8] for fact in facts)
    assert found["parameters"] == tuple(f"{fact['parameters']:,}" for fact in facts)
    (best,) = [row for row in outcome_rows(read) if row.name == "final val_loss"]
    lowest = min(fact["final"]["val_loss"] for fact in facts)
    assert best.best == {i for i, fact in enumerate(facts) if fact["final"]["val_loss"] == lowest}


def test_equal_weights_are_said_and_others_are_not(runs):
    one, two, other = read_runs([runs / name for name in ("one", "two", "other")])
    (sentence,) = same_weights([one, two, other])
    assert "A, B" in sentence and "C" not in sentence
    assert same_weights([one, other]) == []


def test_a_run_without_its_end_tells_what_its_last_checkpoint_knows(copies):
    (whole,) = read_runs([Path("one")])
    (copies / "one" / "summary.json").unlink()
    (killed,) = read_runs([Path("one")])
    assert (whole.status, killed.status) == ("finished", "not finished")
    assert killed.best == pytest.approx(whole.best)
    assert killed.final == pytest.approx(whole.final, rel=1e-6)  # seven digits of metrics.csv
    shown = rows(outcome_rows([killed]))
    assert (shown["steps"], shown["workers"]) == (("12",), ("1 single",))


def test_a_run_that_is_under_way_is_shown_as_such(copies):
    held = lock.acquire(Path("one"), print)
    try:
        assert read_runs([Path("one")])[0].status == "running"
    finally:
        held.release()
    assert read_runs([Path("one")])[0].status == "finished"


def test_an_interrupted_run_and_one_that_went_on_after_its_summary(copies):
    facts = summary(Path("one"))
    Path("one/summary.json").write_text(json.dumps(facts | {"stopped_by": "preempted"}))
    Path("two/summary.json").write_text(json.dumps(facts | {"steps": 8, "final": {"loss": 9.0}}))
    one, two = read_runs([Path("one"), Path("two")])
    assert (one.status, two.status) == ("interrupted", "not finished")
    assert two.final["loss"] != 9.0


@pytest.mark.parametrize("count", (1, 2, 3, 8, 30))
def test_the_tables_fit_into_80_columns_and_nothing_is_cut(copies, capsys, count):
    settings = yaml.safe_load(Path("one/config.yaml").read_text())
    for i in range(count):
        shutil.copytree("one", f"run{i}", symlinks=True)
        different = {"learning_rate": (i + 1) / 1000, "optimizer": ("sgd", "adam")[i % 2], "seed": 1000 + i}
        different["data_dir"] = f"/somewhere/far/away/{i}/tiny.npz"
        Path(f"run{i}/config.yaml").write_text(yaml.safe_dump(settings | different))
    assert compare.main([f"run{i}" for i in range(count)]) == 0
    shown = capsys.readouterr().out
    tables = shown[: shown.index("written:")]
    assert max(map(len, tables.splitlines())) <= 80
    assert "…" not in tables
    for i in range(count):
        assert label(i) in tables.split() and f"run{i}" in tables
        if count > 1:
            assert f"{(i + 1) / 1000:g}" in tables.split() and str(1000 + i) in tables.split()
    lines = [line.split() for line in tables.splitlines()]
    # A column for each run where that fits, else a line for each.
    assert (["A", "B"] in lines) == (count == 2)
    if count > 2:
        assert any(line[:1] == [label(count - 1)] and str(1000 + count - 1) in line for line in lines)


def test_labels_go_on_behind_z():
    assert [label(i) for i in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]


def test_curves_are_the_lines_of_metrics_csv(runs):
    read = read_runs([runs / "one", runs / "other"])
    found = {panel.title: panel.curves for panel in curves.panels(read)}
    assert list(found)[:4] == ["validation loss", "training loss", "validation accuracy", "training accuracy"]
    for title, column in (("validation loss", "val_loss"), ("training accuracy", "accuracy")):
        assert [curve.points for curve in found[title]] == [
            [(row["epoch"], row[column]) for row in run.epochs] for run in read
        ]
    assert [curve.run for curve in found["validation top5"]] == [1]  # in one colour in all panels
    assert [curve.dashed for curve in curves.panels(read[:1])[0].curves] == [False, True]


def test_where_the_files_go(copies, capsys, monkeypatch):
    assert compare.main(["one", "two"]) == 0
    assert {path.name for path in Path("comparison").iterdir()} == {"comparison.png", "report.html"}
    assert Path("comparison/comparison.png").read_bytes().startswith(b"\x89PNG")
    before = {path.name for path in Path("one").iterdir()}
    assert compare.main(["one/"]) == 0
    assert {path.name for path in Path("one").iterdir()} == before | {"report.html"}
    assert compare.main(["two", "--out", "new/folder"]) == 0
    assert [path.name for path in Path("new/folder").iterdir()] == ["report.html"]
    assert "new/folder/report.html" in capsys.readouterr().out
    monkeypatch.chdir("other")
    assert compare.main(["."]) == 0
    assert repeat.by_file(read_runs([Path()])[0]).endswith(f"--run-dir {copies}/other-again")


def test_a_run_before_its_first_epoch(copies):
    Path("new").mkdir()
    shutil.copy("one/config.yaml", "new")
    assert compare.main(["new"]) == 0
    assert compare.main(["new", "one"]) == 0


def test_the_command_to_repeat_it_gives_the_same_settings(copies):
    given = {"deterministic": True, "metrics": ("accuracy", "auc"), "data_dir": "it's here", "dataset": "image_folder"}
    given |= {"clip_norm": 1.0, "validation_split": 1 / 3, "profile_steps": (2, 3), "warmup_epochs": 0.0}
    config = TrainConfig(**given, run_dir="two")
    config_module.save(config, Path("two/config.yaml"))
    (run,) = read_runs([Path("two")])
    for line in (repeat.by_file(run), repeat.by_flags(run)):
        *launcher, program, flags = line.split(" ", 5)
        assert [*launcher, program] == ["horovodrun", "-np", "2", "python", "launch/train.py"]
        again = parse_arguments(shlex.split(flags), program="train.py", description="")
        assert again.run_dir != config.run_dir
        assert again.model_copy(update={"run_dir": config.run_dir}) == config


def test_a_run_of_an_earlier_version_is_shown_and_repeated_as_it_was(copies):
    """Of two settings it knew nothing: it let weight decay act on everything, and did not turn photographs."""
    config_module.save(TrainConfig(weight_decay=0.1, run_dir="two"), Path("two/config.yaml"))
    settings = yaml.safe_load(Path("two/config.yaml").read_text())
    del settings["exif"], settings["decay_all"]
    Path("two/config.yaml").write_text(yaml.safe_dump(settings))
    (run,) = read_runs([Path("two")])
    assert (run.settings["exif"], run.settings["decay_all"]) == ("ignore", True)
    for line in (repeat.by_file(run), repeat.by_flags(run)):
        again = parse_arguments(shlex.split(line.split(" ", 5)[5]), program="train.py", description="")
        assert (again.exif, again.decay_all, again.weight_decay) == ("ignore", True, 0.1)


def test_what_a_script_gave_is_not_said_to_be_repeatable(copies):
    # The runs of these tests train a network that was given as an object.
    assert repeat.given_from_python(read_runs([Path("one")])[0]) == ["network"]


def test_tensorflow_is_not_needed(copies):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from launch import compare; "
        f"code = compare.main([{str(copies / 'one')!r}, {str(copies / 'two')!r}, '--out', {str(copies / 'out')!r}]); "
        "print(code, 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    assert run_command(sys.executable, "-c", code).stdout.splitlines()[-1] == "0 False False"


def _remove_settings(run: Path) -> None:
    (run / "config.yaml").unlink()


def _write(name: str, content: str | bytes):
    def damage(run: Path) -> None:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


DAMAGES = {
    "no settings": (_remove_settings, r"is no run, it has no config.yaml"),
    "settings no YAML": (_write("config.yaml", "a: [1"), r"config.yaml is not YAML"),
    "settings a list": (_write("config.yaml", "- 1"), r"config.yaml is not lines of the form"),
    "settings no text": (_write("config.yaml", b"\xff\xfe\x00"), r"config.yaml cannot be read \(it is not text\)"),
    "summary torn": (_write("summary.json", '{"final": {'), r"summary.json is not JSON"),
    "summary a list": (_write("summary.json", "[1]"), r"summary.json holds no JSON object"),
    "summary of another kind": (_write("summary.json", '{"final": 3}'), r"final in .*summary.json is no JSON object"),
    "labels torn": (_write("labels.json", "{"), r"labels.json is not JSON"),
    "exchange deep": (_write("exchange.json", "[" * 100_000), r"exchange.json is not JSON"),
    "table with a short line": (_write("metrics.csv", "epoch,step,loss\n1,2\n"), r"line 2 of .*metrics.csv"),
    "table with a word": (_write("metrics.csv", "epoch,step,loss\n1,2,much\n"), r"metrics.csv has a cell .*'much'"),
    "table without epochs": (_write("metrics.csv", "step,loss\n1,2\n"), r"metrics.csv lacks the number of an epoch"),
    "evaluation torn": (_write("evaluation-test/metrics.json", "{"), r"evaluation-test/metrics.json is not JSON"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_refused_in_one_sentence(copies, capsys, name):
    damage, expected = DAMAGES[name]
    damage(Path("other"))
    before = sorted(copies.rglob("*"))
    assert compare.main(["one", "other"]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ") and re.search(expected, line) and "; " in line
    assert out == ""
    assert sorted(copies.rglob("*")) == before


def test_all_problems_are_named_at_once(copies, capsys):
    Path("torn").mkdir()
    _write("config.yaml", "a: [1")(Path("torn"))
    _write("summary.json", "{")(Path("torn"))
    Path("file").touch()
    assert compare.main(["one", "nowhere", "torn", "./one", "file", "."]) == 2
    lines = capsys.readouterr().err.splitlines()
    for expected in (
        "nowhere does not exist",
        "torn/config.yaml is not YAML",
        "torn/summary.json is not JSON",
        "one was given twice",
        "file is a file, not a run directory",
        ". is no run",
    ):
        assert len([line for line in lines if expected in line]) == 1, (expected, lines)
    assert len(lines) == 6 and "./*" in lines[-1]


@pytest.mark.parametrize("blocked", ("report.html", "comparison.png"))
def test_what_cannot_all_be_written_leaves_what_was_there(copies, capsys, blocked):
    assert compare.main(["one", "two", "--out", "out"]) == 0
    other = {"report.html": "comparison.png", "comparison.png": "report.html"}[blocked]
    before = (copies / "out" / other).read_bytes()
    (copies / "out" / blocked).unlink()
    (copies / "out" / blocked).mkdir()
    assert compare.main(["one", "other", "--out", "out"]) == 2
    assert f"out/{blocked} cannot be written (there is a folder of that name)" in capsys.readouterr().err
    assert (copies / "out" / other).read_bytes() == before
    assert {path.name for path in (copies / "out").iterdir()} == {"report.html", "comparison.png"}


def test_an_out_that_cannot_be_a_folder(copies, capsys):
    Path("file").touch()
    assert compare.main(["one", "--out", "file/out"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_what_cannot_be_written_is_shown_nevertheless(copies, capsys):
    with rights(copies, 0o555):
        assert compare.main(["one", "two"]) == 2
    said = capsys.readouterr()
    assert "comparison.png cannot be written (Permission denied)" in said.err and "two" in said.out
    assert not Path("comparison").exists()


def test_a_folder_that_may_not_be_entered_is_a_sentence(copies, capsys):
    assert compare.main(["two"]) == 0  # which loads what it needs
    with rights(copies / "one", 0):
        assert compare.main(["one/run", "one", "two"]) == 2
        assert compare.main(["two", "--out", "one/out"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" cannot be ")[0] for line in lines] == [
        "error: one/run", "error: one/config.yaml", "error: one/out/report.html"
    ]  # fmt: skip


def test_names_are_the_shortest_that_tell_runs_apart(copies):
    Path("deep").mkdir()
    shutil.copytree("one", "deep/one", symlinks=True)
    names = [run.name for run in read_runs([Path("one"), Path("deep/one"), Path("other/")])]
    assert names == ["one", "deep/one", "other"]
    with pytest.raises(ComparisonError):
        read_runs([Path("one"), Path("deep/../one")])
