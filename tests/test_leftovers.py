"""Variables and a keras.json that other work has left behind change no result, and are named where they would have."""

import json

import pytest
from conftest import ROOT, run_command, summary
from user_files import SMALL

from launch.job.environment.leftovers import KERAS_DEFAULTS, LEFTOVERS, SETTLED, overrule

TRAIN, EVALUATE = ROOT / "launch" / "train.py", ROOT / "launch" / "evaluate.py"
LINE = "--dataset npz --global-batch-size 16 --epochs 1 --learning-rate 0.05 --micro-batch-size 8 --deterministic"
# Values of which each breaks something, or changes bits, where it is not taken out.
HOSTILE = {
    "KERAS_BACKEND": "jax",
    "KERAS_MAX_EPOCHS": "none",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "KERAS_NNX_ENABLED": "1",
    "TF_USE_LEGACY_KERAS": "1",
    "TF2_BEHAVIOR": "0",
    "TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}',
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_SET_ONEDNN_FPMATH_MODE": "BF16",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "TF_USE_DEEP_CONV2D": "1",
    "NVIDIA_TF32_OVERRIDE": "0",
}
KERAS_JSON = {"floatx": "float16", "epsilon": 0.1, "backend": "torch", "image_data_format": "channels_first"}


@pytest.fixture
def home(tmp_path):
    """A home with the keras.json of other work."""
    (tmp_path / "home" / ".keras").mkdir(parents=True)
    (tmp_path / "home" / ".keras" / "keras.json").write_text(json.dumps(KERAS_JSON))
    return tmp_path / "home"


@pytest.mark.parametrize("name", LEFTOVERS)
def test_each_is_taken_out_and_named_where_it_matters(tmp_path, name):
    variables = {"KERAS_HOME": str(tmp_path), "PATH": "/bin", name: "odd"}
    assert f"{name}=odd" in overrule(variables)
    assert variables == {"KERAS_HOME": str(tmp_path), "PATH": "/bin"} | SETTLED
    for value in LEFTOVERS[name]:
        variables[name] = value.upper()
        assert overrule(variables) is None


def test_a_keras_json_is_named_only_for_what_differs(tmp_path):
    file = tmp_path / "keras.json"
    assert overrule({"KERAS_HOME": str(tmp_path)}) is None
    for text in ("no json", "[]", json.dumps(KERAS_DEFAULTS), '{"floatx": "float32", "other": 1}'):
        file.write_text(text)
        assert overrule({"KERAS_HOME": str(tmp_path)}) is None, text
    file.write_text('{"floatx": "float64", "backend": "tensorflow", "image_data_format": "channels_first"}')
    assert f": floatx float64, image_data_format channels_first of {file}" in overrule({"KERAS_HOME": str(tmp_path)})


def test_no_bit_of_training_and_evaluation_depends_on_them(tmp_path, tiny_data, home):
    (tmp_path / "net.py").write_text(SMALL)
    line = [*LINE.split(), "--data-dir", tiny_data, "--model", f"{tmp_path}/net.py:build"]
    variables = HOSTILE | {"HOME": str(home)}
    for name, given in (("clean", {}), ("hostile", variables)):
        done = run_command("python", TRAIN, *line, "--run-dir", tmp_path / name, **given)
        assert done.returncode == 0, done.stderr
        for leftover in (*HOSTILE, "keras.json"):
            assert done.stderr.count(leftover) == (name == "hostile"), leftover
    clean, hostile = summary(tmp_path / "clean"), summary(tmp_path / "hostile")
    for field in ("weights_sha256", "final", "best"):
        assert clean[field] == hostile[field], field
    done = run_command("python", EVALUATE, tmp_path / "hostile", "--out", tmp_path / "evaluation", **variables)
    assert done.returncode == 0 and done.stderr.count("keras.json") == 1, done.stderr
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(clean["final"]["val_accuracy"], rel=1e-6)  # there a float32
    assert json.loads((home / ".keras" / "keras.json").read_text()) == KERAS_JSON


def test_downloads_of_keras_stay_where_they_are(tmp_path):
    code = "from launch.job import environment\nwith environment.loading(quiet=True):\n    import keras\n"
    code += "from keras.src.utils.file_utils import config\nprint(config.keras_home(), keras.config.floatx())"
    done = run_command("python", "-c", code, PYTHONPATH=str(ROOT), HOME=str(tmp_path))
    assert done.stdout.split() == [str(tmp_path / ".keras"), "float32"], done.stderr


# Convolutions as a profile of them names them.
KERNELS = """
{order}
from distributed.world import World
environment.prepare(World(), verbose=False, cpu=True)
import tensorflow as tf
x, w = tf.ones((2, 8, 8, 4)), tf.ones((3, 3, 4, 4))
@tf.function
def train(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(tf.nn.conv2d(x, w, 1, "SAME") ** 2)
    return tape.gradient(loss, x)
train(x)
tf.profiler.experimental.start({folder!r})
train(x)
tf.profiler.experimental.stop()
"""


# What a program does first, or a script, and whether that is in time.
ORDERS = {
    "program": ("from launch.job import environment", True),
    "script": ("import launch.job.config, keras\nfrom launch.job import environment", True),
    "keras first": ("import keras\nfrom launch.job import environment", False),
}


@pytest.mark.parametrize("order", ORDERS)
def test_convolutions_are_those_of_onednn_on_every_cpu(tmp_path, order):
    imports, in_time = ORDERS[order]
    code = KERNELS.format(order=imports, folder=str(tmp_path))
    done = run_command("python", "-c", code, PYTHONPATH=str(ROOT), KERAS_BACKEND="tensorflow", TF_ENABLE_ONEDNN_OPTS="")
    assert done.returncode == 0, done.stderr
    (profile,) = tmp_path.rglob("*.xplane.pb")
    names = profile.read_bytes()
    if in_time:
        assert b"_MklNativeConv2D" in names and b":Conv2D" not in names and "note:" not in done.stderr
    else:
        # By itself TensorFlow may have them, or not; if not, it is said.
        assert (b"_MklNativeConv2D" in names) != ("note: TensorFlow was loaded before Lockstep" in done.stderr)
