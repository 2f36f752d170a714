"""What export.py refuses, and that it leaves nothing half written, whatever goes wrong."""

import json
import resource
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, run_command
from PIL import Image
from rights import rights
from test_export_formats import FILE, needs_packages, train

from launch.export import FORMATS, main
from launch.exports import formats, pictures
from launch.exports.run import _beside, _check_place, _commit
from launch.trained.load import Found
from launch.trained.program import OutputError
from launch.trained.record import Record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    networks = {f"{FILE}:{name}": 16 for name in ("sequential", "any_code")}
    return train(tmp_path_factory.mktemp("runs"), networks, (3,), ("float32",))


@pytest.fixture
def run(folder):
    """A run; what is in it afterwards that was not before is gone for the next test."""
    path = folder / "sequential-3-float32"
    before = set(path.iterdir())
    yield path
    for made in set(path.iterdir()) - before:
        shutil.rmtree(made) if made.is_dir() else made.unlink()


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(capsys, words, *line):
    """The one line on stderr of an export that ends with exit code 2."""
    try:
        code = main([str(word) for word in line])
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    assert (code, said.out) == (2, "") and said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert words in said.err and "Traceback" not in said.err
    return said.err


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir()
    for mode in (0, 0o555):
        with rights(tmp_path / "theirs", mode), pytest.raises(OutputError, match="theirs cannot be written to"):
            _check_place(tmp_path / "theirs/new/model.keras", "keras", False)


def test_a_former_export_stays_where_the_new_one_cannot_take_its_name(tmp_path):
    target, there = tmp_path / "saved_model", tmp_path / "saved_model/saved_model.pb"
    target.mkdir()
    there.write_text("former")
    with pytest.raises(OutputError, match="cannot be written"), _beside(target) as temporary:
        _commit(temporary, target)  # without a new one
    assert there.read_text() == "former" and [*tmp_path.iterdir()] == [target]


def test_validation_pictures_that_cannot_be_decoded_are_no_reason_not_to_export(tmp_path):
    for place in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (tmp_path / place).mkdir(parents=True)
        path = tmp_path / place / "1.jpg"
        Image.effect_noise((64, 64), 50).save(path)
        if place.startswith("val"):
            path.write_bytes(path.read_bytes()[:-40])
    configuration = {"dataset": "image_folder", "data_dir": str(tmp_path)}
    record = Record(
        classes=("cat", "dog"), image_size=32, pixels={}, outputs="", model="", model_sha256="",
        dataset="image_folder", data_sha256="", versions={},
    )  # fmt: skip
    found = Found(tmp_path, tmp_path, {"configuration": configuration}, record, "")
    pixels, what = pictures.sample(found)
    assert pixels.shape == (pictures.COUNT, 32, 32, 3) and what.startswith("generated pictures")


def test_help_needs_no_tensorflow():
    code = (
        "import runpy, sys; sys.argv = ['export.py', '--help']\n"
        f"try: runpy.run_path({str(ROOT / 'launch' / 'export.py')!r}, run_name='__main__')\n"
        "finally: assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = run_command(sys.executable, "-c", code)
    assert done.returncode == 0 and "--format savedmodel" in done.stdout, done.stderr


def test_it_is_one_process_in_a_shell_of_slurm_and_no_task_of_many(capsys, monkeypatch, tmp_path):
    for name, value in (("STEP_ID", 0), ("STEP_NUM_TASKS", 4), ("PROCID", 0)):
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    refused(capsys, f"{tmp_path}", tmp_path, "--format", "keras")
    monkeypatch.setenv("SLURM_PROCID", "1")
    refused(capsys, "srun started 4 tasks without PMI", tmp_path, "--format", "keras")


@pytest.mark.parametrize(
    ("line", "words"),
    (
        ("RUN", "required: --format"),
        ("RUN --format caffe", "invalid choice: 'caffe'"),
        ("RUN/nothing --format keras", "is no folder"),
        ("RUN/tensorboard --format keras", "is no run directory"),
        ("HALF --format keras", "has no checkpoint yet"),
        ("RUN --format keras --checkpoint RUN/tensorboard", "is no checkpoint"),
        ("RUN --format keras --checkpoint DAMAGED", "is not the file that was saved"),
        ("RUN --format keras --out RUN/model.h5", "must end with .keras"),
        ("RUN --format weights --out RUN/model.h5", "must end with .weights.h5"),
        ("RUN --format tflite --out RUN/none/model.tflite", "there is no folder"),
        ("RUN --format tflite --out /proc/model.tflite", "cannot be written"),
        ("RUN --format savedmodel --out RUN/tensorboard", "is there already"),
        ("RUN --format savedmodel --out RUN/tensorboard --overwrite", "is no export of this format"),
        ("RUN --format savedmodel --out RUN/labels.json --overwrite", "is no export of this format"),
        ("RUN --format savedmodel --out .", "--out . ends with no name of its own; add one, such as saved_model"),
        ("ALONE --format keras", "say with --out"),
    ),
)
def test_what_cannot_be_is_one_sentence_and_nothing_changes(run, tmp_path, capsys, line, words):
    (tmp_path / "half" / "checkpoints").mkdir(parents=True)
    shutil.copy(run / "config.yaml", tmp_path / "half")
    for name in ("alone", "damaged"):
        shutil.copytree(run / "checkpoints" / "best", tmp_path / name)
    with (tmp_path / "damaged" / "weights.safetensors").open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"?")
    places = {"RUN": run, "HALF": tmp_path / "half", "ALONE": tmp_path / "alone", "DAMAGED": tmp_path / "damaged"}
    for name, path in places.items():
        line = line.replace(name, str(path))
    before = contents(run), contents(tmp_path)
    refused(capsys, words, *line.split())
    assert (contents(run), contents(tmp_path)) == before


def test_an_export_is_replaced_only_on_request(run, capsys):
    for form in ("savedmodel", "keras"):
        line = [str(run), "--format", form]
        assert main(line) == 0
        before = contents(run)
        capsys.readouterr()
        refused(capsys, "is there already; give another name with --out, or --overwrite", *line)
        assert contents(run) == before
        assert main([*line, "--overwrite"]) == 0
        assert contents(run).keys() == before.keys()


@pytest.mark.faults
@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_answers_otherwise_is_deleted(form, run, capsys, monkeypatch):
    needs_packages(form)
    before, format = contents(run), formats.FORMATS[form]

    def disturbed(network, record, path):
        bias = network.trainable_variables[-1]
        kept = bias.numpy()
        bias.assign(kept + [0.01, 0, 0])
        format.write(network, record, path)
        bias.assign(kept)

    monkeypatch.setitem(formats.FORMATS, form, format._replace(write=disturbed))
    said = refused(capsys, "would differ from the run by", run, "--format", form)
    assert "it was deleted" in said and contents(run) == before


def test_a_file_that_does_not_load_is_deleted(run, capsys, monkeypatch):
    before, format = contents(run), formats.FORMATS["tflite"]

    def half(network, record, path):
        format.write(network, record, path)
        path.write_bytes(path.read_bytes()[:1000])

    monkeypatch.setitem(formats.FORMATS, "tflite", format._replace(write=half))
    refused(capsys, "does not load in TensorFlow Lite", run, "--format", "tflite")
    assert contents(run) == before


@pytest.mark.faults
@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_leaves_nothing(form, run, tmp_path, capsys, monkeypatch):
    needs_packages(form)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python would keep half of a module
    limits, out = resource.getrlimit(resource.RLIMIT_FSIZE), tmp_path / f"x{formats.FORMATS[form].suffix}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        refused(capsys, "nothing was left", run, "--format", form, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == {}


@pytest.mark.faults
@pytest.mark.parametrize("form", FORMATS)
def test_a_file_system_that_is_full_leaves_nothing(form, run, tmp_path, capsys):
    needs_packages(form)
    command = ["mount", "-t", "tmpfs", "-o", "size=8k", "none", tmp_path]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        out = tmp_path / f"x{formats.FORMATS[form].suffix}"
        assert "No space left" in refused(capsys, "nothing was left", run, "--format", form, "--out", out)
        assert contents(tmp_path) == {}
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("package", ("tf2onnx", "onnx", "onnxruntime"))
def test_a_missing_package_is_named_with_the_command(package, run, capsys, monkeypatch):
    before = contents(run)
    # To Python that is a module that cannot be found.
    monkeypatch.setitem(sys.modules, package, None)
    refused(capsys, "make setup EXPORT=1", run, "--format", "onnx")
    assert contents(run) == before


def test_a_lambda_layer_is_refused_by_name_for_keras_alone(folder, capsys):
    run = folder / "any_code-3-float32"
    refused(capsys, "plus is a Lambda layer", run, "--format", "keras")
    assert main([str(run), "--format", "savedmodel"]) == 0


def test_where_the_data_is_gone_pictures_are_generated(folder, run, capsys):
    data = folder / "3-16.npz"
    moved = data.rename(data.with_suffix(".away"))
    try:
        assert main([str(run), "--format", "tflite"]) == 0
    finally:
        moved.rename(data)
    assert "on 32 generated pictures" in capsys.readouterr().out


def test_last_and_best_are_what_they_say(run, tmp_path, capsys):
    for name in ("best", "last"):
        step = (run / "checkpoints" / name).resolve().name
        assert main([str(run), "--format", "weights", "--checkpoint", name, "--overwrite"]) == 0
        assert f"from {step}" in capsys.readouterr().out
    line = [sys.executable, ROOT / "launch" / "export.py", run / "checkpoints" / "best", "--format", "tflite"]
    done = run_command(*line, "--out", tmp_path / "x.tflite")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert json.loads((tmp_path / "x.tflite.labels.json").read_text())["classes"] == ["0", "1", "2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tflite", "x.tflite.labels.json"]
