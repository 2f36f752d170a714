"""The house's rules: who may import whom, and that nothing in it names the place where it was built."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("distributed", "models", "data", "launch")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
# Read before TensorFlow is loaded, or by tools that must not wait for it.
WITHOUT_TENSORFLOW = [f"distributed.{name}" for name in ("world", "schedule", "decisions")]
WITHOUT_TENSORFLOW += [
    f"distributed.checkpoint.{name}" for name in ("commit", "disk", "manager", "saver", "tensor_files")
]
WITHOUT_TENSORFLOW += [f"distributed.health.{name}" for name in ("heartbeat", "preemption", "watchdog")]
WITHOUT_TENSORFLOW += ["launch.train", "launch.job.config", "launch.job.arguments", "launch.job.environment"]


def imports(path):
    """``(module, stands inside a function)`` for each import statement of a file."""
    tree = ast.parse(path.read_text())
    functions = [
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    ]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written from the root"
            yield node.module, id(node) in inside
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "__import__",
            "import_module",
            "importlib.import_module",
        ):
            yield ast.literal_eval(node.args[0]), id(node) in inside


def roots(path):
    return {module.partition(".")[0] for module, _ in imports(path)}


def test_every_room_is_there():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(ROOMS)


@pytest.mark.parametrize("room", ("distributed", "models", "data"))
def test_rooms_below_launch_know_none_of_the_others(room):
    others = set(ROOMS) - {room}
    assert {
        str(path.relative_to(ROOT)): roots(path) & others
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] == room and roots(path) & others
    } == {}


@pytest.mark.parametrize(
    ("package", "home"), (("horovod", "distributed/collectives.py"), ("mpi4py", "distributed/control.py"))
)
def test_horovod_and_mpi_have_one_door_each_and_it_opens_late(package, home):
    # Outside of a run: the launcher's stand-in, and the hand-written Horovod that the benchmark compares with.
    apart = {ROOT / "launch" / "install" / "horovodrun.py", *(ROOT / "launch" / "baselines").iterdir()}
    assert [str(path.relative_to(ROOT)) for path in SOURCES if package in roots(path) and path not in apart] == [home]
    assert all(inside for module, inside in imports(ROOT / home) if module.partition(".")[0] == package)


@pytest.mark.parametrize("module", WITHOUT_TENSORFLOW)
def test_modules_without_tensorflow_name_it_nowhere_outside_of_functions(module):
    path = ROOT / f"{module.replace('.', '/')}.py"
    assert not {
        name for name, inside in imports(path) if not inside and name.partition(".")[0] in ("tensorflow", "keras")
    }


def test_modules_without_tensorflow_load_without_it():
    code = f"import sys, json, {', '.join(WITHOUT_TENSORFLOW)}; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout)
    assert set(WITHOUT_TENSORFLOW) <= set(loaded) and not {"tensorflow", "keras", "horovod", "mpi4py"} & set(loaded)


def test_no_file_names_a_home_or_work_folder():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    here = f"|{re.escape(str(ROOT))}" if len(ROOT.parts) > 2 else ""
    personal = re.compile(rf"(?<![\w.}}$-])/(?:home/(?!lockstep/)[a-z]\w*|Users/\w+|root|work(?:space|dir)?)/{here}")
    files = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    texts = {
        path: path.read_bytes().decode(errors="ignore") for path in files if path.is_file() and not path.is_symlink()
    }
    assert {
        str(path.relative_to(ROOT)): found[0] for path, text in texts.items() if (found := personal.search(text))
    } == {}


def test_readme_shows_every_module_in_its_room():
    tree = (ROOT / "README.md").read_text().partition("## The house")[2].partition("```\n")[2].partition("```")[0]
    rooms = {words[0].rstrip("/"): words for words in (part.split() for part in re.split(r"\n(?=\S)", tree))}
    modules = [path for path in SOURCES if path.parent.name in ROOMS and path.name != "__init__.py"]
    assert [str(path.relative_to(ROOT)) for path in modules if path.name not in rooms[path.parent.name]] == []


def test_readme_lists_every_flag_and_every_row_of_the_parity_table():
    from test_parallel import EXACT, REST, TRAINING

    from launch.job.config import TrainConfig

    readme = (ROOT / "README.md").read_text()
    for name, field in TrainConfig.model_fields.items():
        line = next((line for line in readme.splitlines() if line.startswith(f"| `--{name.replace('_', '-')}")), "")
        assert " ".join(field.description.split()) in line, name
    for row, flags in (TRAINING | REST | EXACT).items():
        assert f"| `{row}` | `{flags.replace('DATA/', '')}` |" in readme
