"""Every number of an evaluation's report, held to scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from launch.evaluation import classification
from launch.evaluation.classification import ClassScore, ConfusedPair, EvaluationError, report


def answers(n, c, seed=0):
    """Labels, probabilities and losses of a middling classifier; no two of its probabilities are equal."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, c, n).astype(np.int32)
    logits = rng.normal(size=(n, c))
    logits[np.arange(n), labels] += 1.5
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    return labels, probabilities, -np.log(probabilities[np.arange(n), labels])


@pytest.mark.parametrize(("n", "c"), [(1003, 10), (400, 2), (3000, 150), (7, 6)])
def test_every_number_is_scikit_learns(n, c):
    labels, probabilities, losses = answers(n, c)
    found, predicted, classes = report(labels, probabilities, losses), probabilities.argmax(axis=1), np.arange(c)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(labels, predicted, labels=classes))
    assert found.confusion.dtype == np.int64 and found.examples == n
    np.testing.assert_array_equal(found.predicted, predicted)
    assert found.accuracy == metrics.accuracy_score(labels, predicted)
    expected = metrics.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
        ours = [getattr(score, name) for score in found.classes]
        np.testing.assert_allclose(np.array(ours, float), values, rtol=1e-12, err_msg=name)
    assert [score.count for score in found.classes] == expected[3].tolist()
    present = np.unique(labels)
    macro = metrics.precision_recall_fscore_support(
        labels, predicted, labels=present, average="macro", zero_division=0
    )
    np.testing.assert_allclose((found.macro_precision, found.macro_recall, found.macro_f1), macro[:3], rtol=1e-12)
    assert found.loss == pytest.approx(metrics.log_loss(labels, probabilities, labels=classes), rel=1e-5)
    if c > 5:
        assert found.top5_accuracy == metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=classes)
    else:
        assert found.top5_accuracy is None


def test_the_mean_loss_is_summed_in_float64():
    labels, probabilities, _ = answers(3, 2)
    losses = np.array([2**24, 1, 1], np.float32)  # float32 loses both ones
    assert report(labels, probabilities, losses).loss == (2**24 + 2) / 3


def test_ties_go_to_the_lower_class_in_the_first_place_and_in_the_top_five():
    probabilities = np.full((3, 8), 0.125, np.float32)
    probabilities[1] = [0.05, 0.05, 0.3, 0.05, 0.3, 0.05, 0.1, 0.1]
    probabilities[2] = [0, 0, 1, 0, 0, 0, 0, 0]  # as of a network that is very sure: no class comes twice
    found = report(np.array([4, 5, 5], np.int32), probabilities, np.zeros(3, np.float32))
    assert found.top.tolist() == [[0, 1, 2, 3, 4], [2, 4, 6, 7, 0], [2, 0, 1, 3, 4]]
    assert found.top.dtype == np.int32 and found.top5_accuracy == 1 / 3


def test_what_cannot_be_said_is_none():
    # Class 1 is never predicted; class 2 has no examples; class 3 neither.
    labels = np.array([0, 0, 0, 1], np.int32)
    probabilities = np.eye(4, dtype=np.float32)[[0, 0, 2, 0]]
    found = report(labels, probabilities, np.zeros(4, np.float32))
    assert found.classes == (
        ClassScore(3, 3, 2, precision=2 / 3, recall=2 / 3, f1=2 / 3),
        ClassScore(1, 0, 0, precision=None, recall=0.0, f1=0.0),
        ClassScore(0, 1, 0, precision=0.0, recall=None, f1=0.0),
        ClassScore(0, 0, 0, precision=None, recall=None, f1=None),
    )
    # Over the classes that have examples.
    assert (found.macro_precision, found.macro_recall, found.macro_f1) == (1 / 3, 1 / 3, 1 / 3)


# Newcombe (1998), Statistics in Medicine 17:857, table I, method 3.
@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_as_published(correct, n, low, high):
    found = classification.wilson_interval(correct, n)
    assert tuple(round(end, 4) for end in found) == (low, high)
    mirrored = classification.wilson_interval(n - correct, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("n", range(1, 60))
def test_wilson_interval_ends_at_0_and_1(n):
    assert classification.wilson_interval(0, n)[0] == 0.0 and classification.wilson_interval(n, n)[1] == 1.0


def test_most_confused_pairs_by_count_then_by_class():
    confusion = np.array([[5, 2, 3], [2, 9, 0], [0, 3, 1]])
    assert classification.most_confused(confusion, 3) == (
        ConfusedPair(0, 2, 3, 0.3),
        ConfusedPair(2, 1, 3, 0.75),
        ConfusedPair(0, 1, 2, 0.2),
    )
    assert classification.most_confused(np.diag([3, 4]), 3) == ()


def test_worst_mistakes_are_the_surest_then_the_earlier():
    labels = np.array([0, 1, 1, 0, 1], np.int32)
    probabilities = np.array([[0.2, 0.8], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.8, 0.2]], np.float32)
    judged = report(labels, probabilities, np.zeros(5, np.float32))
    assert classification.worst_mistakes(labels, probabilities, judged, 3).tolist() == [1, 3, 0]
    assert classification.worst_mistakes(labels, probabilities, judged, 9).tolist() == [1, 3, 0, 4]


def test_answers_that_are_no_numbers_are_refused():
    labels, probabilities, losses = answers(20, 3)
    probabilities[7, 1], losses[9] = np.nan, np.inf
    with pytest.raises(EvaluationError, match="not finite for 2 of 20 examples, the first at index 7"):
        report(labels, probabilities, losses)
    with pytest.raises(EvaluationError, match="no examples"):
        report(labels[:0], probabilities[:0], losses[:0])
