"""Gradients that travel as float16: how far the sum over many workers is from that in float32."""

import numpy as np
import pytest
import tensorflow as tf

from distributed.gradients.compression import compress, decompress


def summed(shares: np.ndarray, loss_scale: float = 1.0) -> np.ndarray:
    """Shares of all replicas, [N, k], summed one after the other in float16, as on a ring."""
    scale = len(shares), loss_scale
    total = np.zeros(shares.shape[1], np.float16)
    for share in compress(tf.constant(shares), *scale).numpy():
        total = total + share
        assert total.dtype == np.float16
    return decompress(tf.constant(total), tf.constant(shares[0]), *scale).numpy()


def shares_of(replicas: int, seed: int = 0) -> np.ndarray:
    """Of a mean gradient, with sizes over six decades around 1e-5, each replica sees a noisy one, divided by their
    number."""
    random = np.random.default_rng(seed)
    gradient = 1e-5 * np.exp(1.5 * random.normal(size=20_000)) * random.choice((-1, 1), 20_000)
    noise = 1 + random.normal(size=(replicas, 20_000))
    return (gradient * noise / replicas).astype(np.float32)


@pytest.mark.parametrize("replicas", (2, 8, 256))
def test_the_error_does_not_grow_with_the_workers(replicas):
    shares = shares_of(replicas)
    exact = shares.astype(np.float64).sum(0)
    error = np.linalg.norm(summed(shares) - exact) / np.linalg.norm(exact)
    assert 1e-6 < error < 3e-3


@pytest.mark.parametrize("loss_scale", (2.0**15, 2.0**-3))
def test_the_scale_of_the_loss_changes_nothing(loss_scale):
    shares = shares_of(64)
    np.testing.assert_array_equal(summed(shares * np.float32(loss_scale), loss_scale), summed(shares) * loss_scale)


@pytest.mark.parametrize("replicas", (2, 256))
def test_large_gradients_do_not_overflow_and_what_is_not_finite_stays_so(replicas):
    shares = np.array([[1.0, -3e4, np.inf, np.nan, 1e9, -1e30]], np.float32).repeat(replicas, 0) / replicas
    total = summed(shares)
    assert total[0] == pytest.approx(1.0)
    assert total[1] == pytest.approx(max(-3e4, -(2**15) / replicas), rel=0.02)
    assert np.isinf(total[2]) and np.isnan(total[3])
    assert np.isfinite(total[4:]).all() and total[4] > 0 > total[5]
