"""Environment variables and Keras' keras.json that other work has left behind, and that would change results.

A run is defined by its configuration, so none of them counts here: each is taken out before TensorFlow and Keras are
loaded, and named once where it would have mattered.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path

# Variable -> its values that change nothing.  From the sources of TensorFlow 2.18, XLA, oneDNN, CUDA and Keras 3.15:
# what computes by other kernels, in another precision or by other rules.  What only sizes memory, logs or looks for
# libraries (TF_CPP_*, TF_FORCE_GPU_ALLOW_GROWTH, XLA_FLAGS ...) stays the user's.
OFF, ON = ("", "0", "false"), ("", "1", "true")
LEFTOVERS = {
    # Keras
    "KERAS_BACKEND": ("", "tensorflow"),
    "KERAS_MAX_EPOCHS": ("",),
    "KERAS_MAX_STEPS_PER_EPOCH": ("",),
    "KERAS_NNX_ENABLED": OFF,
    "TF_USE_LEGACY_KERAS": OFF,
    # TensorFlow's modes
    "TF2_BEHAVIOR": ON,
    "TF_ENABLE_COND_V2": ON,
    "TF_ENABLE_CONTROL_FLOW_V2": ON,
    "TF_ENABLE_TENSOR_ARRAY_V2": ON,
    "TF_ENABLE_WHILE_V2": ON,
    "TF_CONFIG": ("", "{}"),
    # XLA where nobody asked for it
    "TF_FUNCTION_JIT_COMPILE_DEFAULT": OFF,
    "TF_JIT_COMPILE_REWRITE": OFF,
    "TF_XLA_FLAGS": ("",),
    # kernels of the CPU
    "DNNL_DEFAULT_FPMATH_MODE": ("", "STRICT"),
    "DNNL_MAX_CPU_ISA": ("", "ALL", "DEFAULT"),
    "ONEDNN_DEFAULT_FPMATH_MODE": ("", "STRICT"),
    "ONEDNN_MAX_CPU_ISA": ("", "ALL", "DEFAULT"),
    "TF_ENABLE_ONEDNN_OPTS": ON,
    "TF_ENABLE_ZENDNN_OPTS": OFF,
    "TF_SET_ONEDNN_FPMATH_MODE": ("",),
    "TF_USE_DEEP_CONV2D": OFF,
    # kernels of the GPU
    "NVIDIA_TF32_OVERRIDE": ("",),
    "TF_CONV2D_USE_FP16_ACCUMULATE": OFF,
    "TF_CUDNN_DETERMINISTIC": OFF,
    "TF_CUDNN_USE_AUTOTUNE": ON,
    "TF_CUDNN_USE_FRONTEND": ("",),
    "TF_CUDNN_USE_RUNTIME_FUSION": ("",),
    "TF_DETERMINISTIC_OPS": OFF,
    "TF_DISABLE_SEGMENT_REDUCTION_OP_DETERMINISM_EXCEPTIONS": OFF,
    "TF_ENABLE_MAXPOOL_NANPROP": OFF,
    "TF_ENABLE_WINOGRAD_NONFUSED": ON,
    "TF_FP16_CONV_USE_FP32_COMPUTE": ON,
    "TF_FP16_MATMUL_USE_FP32_COMPUTE": ON,
    "TF_MATMUL_AUTOTUNE_ENABLE": ("",),
    "TF_USE_CUBLASLT": ("",),
    "TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT": OFF,
    "TF_USE_DEFAULT_CONV_ALGO": OFF,
    "TF_USE_DETERMINISTIC_SEGMENT_REDUCTIONS": OFF,
}
# What they are instead.  By itself TensorFlow takes oneDNN's kernels only where a CPU has instructions for neural
# networks (AVX512_VNNI, AMX ...); on others, too, its convolutions are often twice as fast (docs/performance.md).
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
SETTLED = {"KERAS_BACKEND": "tensorflow", ONEDNN: "1"}
CPUINFO, HAVE_IT_BY_THEMSELVES = Path("/proc/cpuinfo"), ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_")
# What keras.json may set, as Keras has it without one.
KERAS_DEFAULTS = {
    "floatx": "float32",
    "epsilon": 1e-7,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
    "nnx_enabled": False,
}


def settle_early(variables: MutableMapping[str, str]) -> None:
    """Ask for oneDNN's kernels as soon as anything of Lockstep is imported: TensorFlow reads that once, when it is
    loaded, and a script may load it before it calls ``train``."""
    if "tensorflow" not in sys.modules and not variables.get(ONEDNN):
        variables[ONEDNN] = SETTLED[ONEDNN]


def too_late(variables: MutableMapping[str, str]) -> str | None:
    """What a script is to be told that has loaded TensorFlow without oneDNN's kernels, or None; before ``overrule``."""
    if "tensorflow" not in sys.modules or variables.get(ONEDNN) == SETTLED[ONEDNN]:
        return None
    with contextlib.suppress(OSError):
        if not variables.get(ONEDNN) and any(word in CPUINFO.read_text() for word in HAVE_IT_BY_THEMSELVES):
            return None
    return (
        "TensorFlow was loaded before Lockstep and computes on the CPU by its slower kernels, whose last bits are "
        "others than in train.py: import launch.job.run before keras and tensorflow"
    )


def overrule(variables: MutableMapping[str, str]) -> str | None:
    """Take out of the environment what would change results, and settle it; what that was, in a sentence, or None."""
    found = {name: value for name in LEFTOVERS if (value := variables.pop(name, None)) is not None}
    variables.update(SETTLED)
    harmless = {name: [value.lower() for value in LEFTOVERS[name]] for name in found}
    mattered = [f"{name}={value}" for name, value in found.items() if value.lower() not in harmless[name]]
    file = keras_file(variables)
    if settings := _settings(file):
        mattered.append(f"{', '.join(f'{name} {value}' for name, value in settings.items())} of {file}")
    if not mattered:
        return None
    return f"not used, as results must depend on the run's own settings alone: {', '.join(mattered)}"


@contextlib.contextmanager
def without_keras_file() -> Iterator[None]:
    """Around the first import of Keras: it reads no keras.json, and its downloads are where they always are."""
    if "keras" in sys.modules:
        yield
        return
    home = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory(prefix="lockstep-keras-") as empty:
        os.environ["KERAS_HOME"] = empty
        try:
            yield
        finally:
            del os.environ["KERAS_HOME"]
            if home is not None:
                os.environ["KERAS_HOME"] = home
            if "keras" in sys.modules:
                from keras.src.backend import config

                config._KERAS_DIR = str(keras_file(os.environ).parent)


def keras_file(variables: MutableMapping[str, str]) -> Path:
    """Where Keras looks for its settings."""
    if home := variables.get("KERAS_HOME"):
        return Path(home).expanduser() / "keras.json"
    user = Path("~").expanduser()
    return (user if os.access(user, os.W_OK) else Path("/tmp")) / ".keras" / "keras.json"


def _settings(file: Path) -> dict:
    """What a keras.json sets otherwise than Keras would."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: found[name] for name, usual in KERAS_DEFAULTS.items() if name in found and found[name] != usual}
