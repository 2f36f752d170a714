"""The pages say what is there: flags, rows, files, links, commands and programs that are printed in them."""

import re
import runpy
import shlex
import subprocess

import keras
import numpy as np
import pytest
from conftest import BIN, ROOT, environment
from parity import EXACT, FURTHER, FURTHER_EXACT, NETWORKS, REST, TRAINING

from distributed.layers import convert
from distributed.layers.dropout import SampleDropout
from launch import check_data, compare, doctor, evaluate, export, predict, prepare
from launch.job import arguments
from launch.job.config import TrainConfig
from launch.job.user import callbacks
from launch.job.user.code import load_function
from launch.job.user.network import build_network

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
RECIPES = sorted((ROOT / "launch" / "recipes").glob("*.yaml"))
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in (*PAGES, *RECIPES)}
README, OWN_CODE = TEXTS["README.md"], TEXTS["docs/own_code.md"]
on_every_page = pytest.mark.parametrize("page", [str(path.relative_to(ROOT)) for path in PAGES])


def blocks(text: str, language: str = "") -> list[str]:
    """What stands between the fences of that language."""
    # A page's parts are by turns outside and inside of fences; the first line inside is the language.
    inside = re.split(r"^```", text, flags=re.MULTILINE)[1::2]
    return [block.partition("\n")[2] for block in inside if block.partition("\n")[0] == language]


def program(text: str, name: str) -> str:
    """The Python block of a page that defines a function."""
    (found,) = [block for block in blocks(text, "python") if f"def {name}(" in block]
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder in which somebody has written the files that the pages print, and works."""
    (tmp_path / "net.py").write_text(program(README, "build"))
    (tmp_path / "mine.py").write_text(program(OWN_CODE, "squares"))
    (tmp_path / "rates.py").write_text(program(TEXTS["docs/training.md"], "halve"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_of_flags_is_current_and_whole():
    page = TEXTS["docs/flags.md"]
    assert page == runpy.run_path(str(ROOT / "docs" / "write_flags.py"))["page"](), "run python docs/write_flags.py"
    rows = {row.split()[1].strip("`"): row for row in page.splitlines() if row.startswith("| `--")}
    assert list(rows) == [f"--{name.replace('_', '-')}" for name in TrainConfig.model_fields]
    for name, field in TrainConfig.model_fields.items():
        assert " ".join(field.description.split()) in rows[f"--{name.replace('_', '-')}"]


def test_the_parity_page_has_the_rows_of_the_tests_and_no_others():
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", TEXTS["docs/parity.md"], re.MULTILINE)
    tables = TRAINING | REST | EXACT | FURTHER | FURTHER_EXACT | NETWORKS
    assert dict(rows) == {row: re.sub("DATA/|HELPERS/", "", flags) for row, flags in tables.items()}


def test_the_page_of_recipes_tells_of_every_one():
    assert [path.stem for path in RECIPES if f"`{path.stem}`" not in TEXTS["docs/recipes.md"]] == []


def test_the_page_of_own_code_names_the_callbacks_that_are_refused_or_run_on_the_chief_alone():
    (chief,) = re.findall(r"^\| on the chief alone \|(.*)$", OWN_CODE, re.MULTILINE)
    (refused,) = re.findall(r"^\| refused \|(.*)$", OWN_CODE, re.MULTILINE)
    assert {cls.__name__ for cls in callbacks._WRITERS} == set(re.findall(r"`(\w+)`", chief))
    assert {cls.__name__ for cls in callbacks._REPLACED} == set(re.findall(r"`([A-Z]\w+)`", refused))


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@on_every_page
def test_every_link_and_picture_is_there(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            broken.append(target)
    assert broken == []


def test_every_page_is_to_be_found_from_the_readme():
    assert [name for name in TEXTS if name.startswith("docs/") and f"({name})" not in README] == []


@pytest.mark.parametrize("page", [name for name in TEXTS if name != "CHANGELOG.md"])
def test_every_file_that_is_named_is_there(page):
    rooms = "launch|distributed|models|data|tests|docs"
    named = re.findall(rf"(?<![\w/.~-])(?:~/lockstep/)?((?:{rooms})/[\w./-]*\w)", TEXTS[page])
    named += [f"tests/{name}" for name in re.findall(r"(?<![\w/])test_\w+\.py", TEXTS[page])]
    named = [name for name in named if name not in ("tests/test_x.py", "data/imagenet")]
    assert [name for name in named if not (ROOT / name).exists()] == []


# Programs for data and for what was trained, each with a command line of its own.
OTHERS = {
    "prepare.py": prepare,
    "evaluate.py": evaluate,
    "predict.py": predict,
    "export.py": export,
    "compare.py": compare,
    "doctor.py": doctor,
    "check_data.py": check_data,
}


def commands(text: str) -> list[tuple[str, list[str]]]:
    """The programs of launch/ that a text shows how to start, with their flags; in shell blocks or a recipe's head."""
    lines = [line for block in blocks(text) for line in block.splitlines()] or re.findall(r"^#   (.*)$", text, re.M)
    start = r"(?:python|sbatch .*) (?:~/lockstep/)?launch/(?:slurm/)?(\w+\.(?:py|sbatch)) ?(.*)$"
    found = [re.search(start, line) for line in lines]
    return [(match[1], shlex.split(match[2], comments=True)) for match in found if match]


@pytest.mark.parametrize("page", TEXTS)
def test_every_command_line_can_be_given(page, folder):
    for name, words in commands(TEXTS[page]):
        if name in OTHERS:
            OTHERS[name].create_parser().parse_args(words)
        elif name != "benchmark.py":
            words = [str(ROOT / word) if word.startswith("launch/") else word for word in words]
            arguments.parse_arguments(words, program=name, description="")


def test_pages_show_commands():
    """The test above is about something."""
    assert len(commands(README)) >= 14 and commands(TEXTS["launch/recipes/alexnet_cifar10.yaml"])


def test_the_network_of_the_readme_is_plain_keras_whose_dropout_is_converted(folder):
    network = build_network(load_function("net.py:build", "--model"), 10, 32)
    assert network.count_params() == 315_722 and "315,722 parameters" in README
    assert network(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 10)
    assert [type(layer) for layer in convert.convert(network, 0).layers if layer.name == "dropout"] == [SampleDropout]
    assert build_network(load_function("net.py:build", "--model"), 2, 32).outputs[0].shape == (None, 1)


def test_the_data_and_callbacks_of_the_page_are_what_it_says(folder):
    (pixels, labels, names), validation = load_function("mine.py:squares", "--dataset")()
    assert validation is None and len(pixels) == len(labels) == 3000 and len(names) == 3
    assert (pixels.shape[1:], pixels.dtype) == ((16, 16, 3), np.uint8)
    found = callbacks.check_callbacks(load_function("mine.py:watch", "--callbacks"))
    assert [callbacks.on_chief_only(callback) for callback in found] == [False, True]
    assert isinstance(found[0], keras.callbacks.EarlyStopping)


def test_the_script_of_the_readme_runs(folder):
    """As it is printed, but for two steps instead of two epochs."""
    (script,) = [block for block in blocks(README, "python") if "result = train(" in block]
    assert script.count("epochs=2,") == 1
    (folder / "script.py").write_text(script.replace("epochs=2,", "epochs=1, steps_per_epoch=2,"))
    done = subprocess.run(
        [BIN / "python", "script.py"], cwd=folder, env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"^runs/build-shapes-[\d-]+ 0\.\d+$", done.stdout, re.MULTILINE), done.stdout
