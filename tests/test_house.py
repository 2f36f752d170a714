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
PURE = ("world", "in_words", "hardware.placement", "hardware.cuda", "optimization.schedule", "decisions", "step_report")
WITHOUT_TENSORFLOW = [f"distributed.{name}" for name in PURE]
WITHOUT_TENSORFLOW += [
    f"distributed.checkpoint.{name}" for name in ("commit", "disk", "manager", "saver", "tensor_files")
]
WITHOUT_TENSORFLOW += [
    f"distributed.health.{name}"
    for name in ("heartbeat", "records", "first_failure", "hosts", "preemption", "watchdog")
]
WITHOUT_TENSORFLOW += [f"launch.job.run_directory.{name}" for name in ("create", "liveness", "lock")]
WITHOUT_TENSORFLOW += [
    f"launch.{name}" for name in ("evaluate", "predict", "export", "compare", "doctor", "check_data", "prepare")
]
WITHOUT_TENSORFLOW += [f"launch.diagnosis.{name}" for name in ("machine", "software", "storage", "speed", "findings")]
WITHOUT_TENSORFLOW += [f"launch.trained.{name}" for name in ("record", "program")]
WITHOUT_TENSORFLOW += [
    f"launch.evaluation.{name}"
    for name in ("classification", "files", "confusion", "sheet", "lettering", "leakage", "projector")
]
WITHOUT_TENSORFLOW += ["launch.train", "launch.job.user.call", "launch.job.user.code"]
WITHOUT_TENSORFLOW += [f"launch.job.{name}" for name in ("arguments", "config", "run", "text_files", "timing.startup")]
WITHOUT_TENSORFLOW += [
    f"launch.job.environment.{name}"
    for name in ("process", "cores", "launchers", "imports", "leftovers", "cuda_libraries")
]
PROGRAMS = sorted(path for path in (ROOT / "launch").glob("*.py") if path.name != "__init__.py")
# Named as folders; what is in them is described nowhere else.
ONE_LINE = ("launch/bench", "launch/bench/comparisons", "launch/baselines")


def imports(path):
    """``(module, is not imported when the file is loaded)`` for each import statement of a file."""
    tree = ast.parse(path.read_text())
    late = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    inside = {id(node) for parent in late for node in ast.walk(parent)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written from the root"
            yield from ((f"{node.module}.{alias.name}", id(node) in inside) for alias in node.names)
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


# Names that load objects from bytes, or run what they are given. Numbers and names of one's own may be loaded by name.
RUNS = {"eval", "exec", "compile", "execfile", "unsafe_load", "full_load", "unsafe_load_all", "full_load_all", "system",
        "popen", "getoutput", "getstatusoutput", "run_path", "run_module", "enable_unsafe_deserialization"}  # fmt: skip
HARMLESS = ("re", "model", "platform")  # re.compile, model.compile, platform.system
LOADS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "runpy", "code", "torch"}
FORBIDDEN_ARGUMENTS = {"shell": None, "allow_pickle": False, "safe_mode": True, "weights_only": True}
# Code that the user names on the command line is run: that is what it is for. Its bytes are hashed, and only these run.
RUN_ON_PURPOSE = {
    "launch/job/user/code.py": {"exec", "compile"},
    "launch/exports/reader.py": {"run_path", "runpy"},
    # Itself once more, in another environment; and the place of the call by which Horovod would start a shell.
    "launch/install/check_gpu_build.py": {"os.execv"},
    "launch/install/horovodrun.py": {"os.execve"},
}


def runs_what_it_is_given(tree):
    """Names of all in a file that could run what comes from outside."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) if name in RUNS and isinstance(node.ctx, ast.Load):
                yield name
            case ast.Attribute(attr=name, value=value) if name in RUNS and ast.unparse(value) not in HARMLESS:
                yield name
            case ast.Attribute(attr=name, value=ast.Name(id="os")) if name.startswith(("exec", "spawn", "posix_spawn")):
                yield f"os.{name}"
            case ast.keyword(arg=name, value=value) if name in FORBIDDEN_ARGUMENTS:
                if not (isinstance(value, ast.Constant) and value.value is FORBIDDEN_ARGUMENTS[name]):
                    yield f"{name}={ast.unparse(value)}"
            case ast.Call(func=ast.Attribute(attr="load" | "load_all", value=ast.Name(id="yaml")), keywords=keywords):
                loaders = {ast.unparse(keyword.value) for keyword in keywords if keyword.arg == "Loader"}
                if not loaders <= {"_Loader", "yaml.SafeLoader"} or not loaders:
                    yield "yaml.load"
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.partition(".")[0] in LOADS)
            case ast.ImportFrom(module=module) if module.partition(".")[0] in LOADS:
                yield module


def test_nothing_that_comes_from_outside_is_run_or_unpickled():
    files = [*SOURCES, *sorted((ROOT / "docs").glob("*.py"))]
    found = {str(path.relative_to(ROOT)): set(runs_what_it_is_given(ast.parse(path.read_text()))) for path in files}
    assert {path: names for path, names in found.items() if names} == RUN_ON_PURPOSE


@pytest.mark.parametrize(
    "line",
    ("import pickle", "from cloudpickle import loads", "eval(x)", "exec(x)", "call(exec, x)", "os.system(x)",
     "subprocess.run(x, shell=True)", "subprocess.run(x, shell=y)", "np.load(x, allow_pickle=True)",
     "yaml.load(x)", "yaml.load(x, Loader=yaml.Loader)", "yaml.unsafe_load(x)", "os.execvp(x, y)",
     "keras.models.load_model(x, safe_mode=False)", "os.popen(x)", "runpy.run_path(x)"),
)  # fmt: skip
def test_such_a_line_would_be_found(line):
    assert list(runs_what_it_is_given(ast.parse(line)))


def test_no_script_evaluates_text():
    kinds = [(room, kind) for room in ("launch", "tests") for kind in ("*.sh", "*.sbatch")]
    scripts = [path for room, kind in kinds for path in (ROOT / room).rglob(kind)]
    assert len(scripts) > 4
    assert [path for path in scripts if re.search(r"(^|[;&|]|\s)eval\s", path.read_text())] == []


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


def test_job_knows_neither_the_programs_nor_the_benchmark():
    programs = {f"launch.{path.stem}" for path in PROGRAMS} | {"launch.bench", "launch.baselines"}
    found = {
        (str(path.relative_to(ROOT)), module)
        for path in (ROOT / "launch" / "job").rglob("*.py")
        for module, _ in imports(path)
        if ".".join(module.split(".")[:2]) in programs
    }
    assert found == set()


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_a_file_of_launch_is_a_program_whose_docstring_is_its_commands(path):
    tree = ast.parse(path.read_text())
    assert f"python launch/{path.name}" in ast.get_docstring(tree), path
    assert any(isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" for node in tree.body)


def tree(page):
    """The lines of a page's tree of folders: folder -> the names of the files below it."""
    text = (ROOT / page).read_text().partition("\nlaunch/  ")[2].partition("```")[0]
    folders, parents = {}, []
    for line in f"launch/  {text}".splitlines():
        name = line.split()[0] if line.strip() else ""
        depth = (len(line) - len(line.lstrip())) // 2
        if name.endswith("/"):
            parents = [*parents[:depth], name.rstrip("/")]
            folders["/".join(parents)] = []
        elif name:
            folders["/".join(parents[:depth])].append(name)
    return folders


def test_contributing_names_every_file_of_every_room_and_no_other():
    named = tree("CONTRIBUTING.md")
    scripts = [path for kind in ("*.sh", "*.c") for path in (ROOT / "launch" / "install").glob(kind)]
    files = {str(path.relative_to(ROOT)) for path in (*SOURCES, *scripts) if path.name != "__init__.py"}
    files = {file for file in files if str(Path(file).parent) not in ONE_LINE}
    assert {f"{folder}/{name}" for folder, names in named.items() for name in names} == files
    assert all(len(names) == len(set(names)) for names in named.values())


def test_every_folder_has_its_line():
    """In the README the rooms, in CONTRIBUTING all."""
    rooms = (*ROOMS, "tests", "docs")
    folders = {str(path.parent.relative_to(ROOT)) for room in rooms for path in (ROOT / room).rglob("*.*")}
    folders = {folder for folder in folders if "__pycache__" not in folder} - {"docs/measured"}
    assert set(tree("CONTRIBUTING.md")) == folders
    assert set(rooms) <= set(tree("README.md")) <= folders
