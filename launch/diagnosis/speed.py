"""How fast this process multiplies and decodes, how fast it exchanges with the others, and how their clocks differ.

All of it is done by all ranks at the same time, as in training.
"""

import time
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from distributed.control import Control
    from distributed.strategies import Strategy

SIDES = (256, 512, 1024, 2048, 4096, 8192)  # of the matrices
CHAIN = 4  # products in a row, so that starting them does not count
ENOUGH = 0.15  # seconds that a measurement should last
JPEG = (375, 500)  # height and width of a typical ImageNet file
JPEG_SIZE = 224
TICKS = 21


def matrix_products(kind: str) -> dict[str, float]:
    """TFLOP/s of large square matrix products by precision, on the device; ``tf32`` where the device has it.

    Args:
        kind: ``GPU`` or ``CPU``.
    """
    import tensorflow as tf

    rates, were_on = {}, tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        tf.config.experimental.enable_tensor_float_32_execution(False)
        for precision in ("float32", "bfloat16", "float16"):
            rates[precision] = _rate(precision)
        if kind == "GPU":
            tf.config.experimental.enable_tensor_float_32_execution(True)
            rates["tf32"] = _rate("float32")
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(were_on)
    return rates


def _rate(dtype: str) -> float:
    """TFLOP/s at the first size that takes long enough to be measured."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def products(left, right):
        for _ in range(CHAIN):
            left = tf.matmul(left, right)
        # The host waits for one number, made on the device, and copies no matrix.
        return tf.reduce_sum(tf.cast(left[:1], tf.float32))

    for side in SIDES:
        # Of this size the products keep theirs.
        normal = [tf.random.stateless_normal((side, side), (0, seed)) for seed in (0, 1)]
        left, right = (tf.cast(values / side**0.5, dtype) for values in normal)
        products(left, right)
        seconds = min(_seconds(products, left, right) for _ in range(2))
        if seconds > ENOUGH:
            break
    return CHAIN * 2 * side**3 / seconds / 1e12


def _seconds(operation, *arguments) -> float:
    began = time.perf_counter()
    operation(*arguments).numpy()
    return time.perf_counter() - began


def jpeg_decoding() -> float:
    """Images per second that one core turns from JPEG files of ImageNet's size to pixels, as training does."""
    import tensorflow as tf

    from data.pictures.decode import NOW, central_decode

    height, width = JPEG
    # Smooth with some noise: files of about 60 kB, as photographs of this size are.
    y, x = np.mgrid[:height, :width]
    waves = np.stack([127 + 90 * np.sin(x / (20 + 9 * c)) * np.cos(y / (31 - 7 * c)) for c in range(3)], -1)
    noise = np.random.default_rng(0).normal(0, 12, waves.shape)
    with tf.device("CPU"):
        file = tf.io.encode_jpeg(np.clip(waves + noise, 0, 255).astype(np.uint8), quality=85)
        files = tf.data.Dataset.from_tensors(file).repeat()
        options = tf.data.Options()
        options.autotune.enabled = False
        options.threading.private_threadpool_size = 1
        upright = tf.constant(1)
        images = iter(files.map(lambda file: central_decode(file, upright, JPEG_SIZE, 7, NOW)).with_options(options))
        next(images)
        done, began = 0, time.perf_counter()
        while (seconds := time.perf_counter() - began) < 4 * ENOUGH:
            next(images)
            done += 1
    return done / seconds


def exchange(strategy: "Strategy") -> dict[str, dict]:
    """Latency and rate of all-reduce and all-gather, as the cost model measures them; all ranks call it together.

    Returns:
        ``allreduce`` and ``allgather``, each ``latency_s`` and ``bytes_per_s`` of the bytes that one rank hands in
        (None where it is too fast to be measured): a call takes ``latency_s + bytes / bytes_per_s``.
    """
    from distributed.gradients import calibration

    measured = calibration.exchanges(strategy)
    return {
        name: {"latency_s": line.latency, "bytes_per_s": 1 / line.per_unit if line.per_unit else None}
        for name, line in zip(("allreduce", "allgather"), measured, strict=True)
    }


def clock_difference(control: "Control") -> float:
    """Seconds by which this rank's clock is ahead of the chief's; all ranks call it together.

    Each looks at its clock as soon as all have come together, many times; the median forgets who was woken late.
    """
    looks = []
    for _ in range(TICKS):
        control.gather(None)
        looks.append(time.time())
    chiefs = control.agree(looks)
    return median(mine - chief for mine, chief in zip(looks, chiefs, strict=True))
