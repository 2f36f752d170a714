"""How much the examples of each class count: files, balance, and what is refused."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight
from user_files import one_line

from data.datasets import ArraySource
from launch.job.config import ConfigError
from launch.job.user.class_weights import read_weights, weigh

CLASSES = ("cat", "dog", "no")


def source(*counts: int) -> ArraySource:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return ArraySource("arrays", CLASSES, np.zeros((len(labels), 2, 2, 3), np.uint8), labels)


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "weights.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_balanced_is_scikit_learns():
    train = source(5, 70, 25)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=train.labels)
    assert weigh("balanced", None, train) == pytest.approx(expected.tolist(), rel=1e-12)
    # Every class counts as much as every other.
    assert np.bincount(train.labels) * expected == pytest.approx([100 / 3] * 3)


@pytest.mark.parametrize(
    ("text", "name"),
    (
        ("dog: 2.5\nno: 0\ncat: 1e-1\n", "weights.yaml"),
        ("{cat: 0.1, dog: 2.5, no: 0}", "weights.yml"),
        ('{"cat": 0.1, "dog": 2.5, "no": 0}', "weights.json"),
        ("dog,2.5\nno,0\ncat, 0.1\n", "weights.csv"),
        ("class,weight\r\ndog,2.5\r\n\r\nno,0\r\ncat,0.1\r\n", "weights.CSV"),
    ),
)
def test_a_file_in_the_order_of_the_data(write, text, name):
    path = write(text, name)
    assert weigh(path, read_weights(path), source(5, 70, 25)) == (0.1, 2.5, 0.0)


@pytest.mark.parametrize(
    ("text", "said"),
    (
        ("cat: 1\ndog: heavy\nno: -1\n", "has dog,heavy, no,-1, but a weight is a number of 0 or more"),
        ("cat: 1\ndog: [1, 2]\nno: .nan\n", "a weight is a number of 0 or more behind the name of a class"),
        ("cat: 1\ncat: 2\ndog: 1\nno: 1\n", "names cat more than once; leave one line for each class"),
        ("- cat\n- dog\n", "is not YAML lines of the form name: weight"),
        ("", "is not YAML lines of the form name: weight"),
        ("cat: 1\nhorse: 2\ncow: 1\n", "has no weight for dog, no, and names horse, cow, which no class is called"),
        ("cat: 0\ndog: 0\nno: 0\n", "gives every class 0, so that nothing is learned"),
    ),
)
def test_all_that_is_wrong_with_a_file_is_one_sentence(write, text, said):
    path = write(text)
    with pytest.raises(ConfigError) as error:
        weigh(path, read_weights(path), source(5, 70, 25))
    assert f"--class-weights {path}" in one_line(error) and said in one_line(error)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read .No such file or directory.; give balanced, or a"):
        read_weights(str(tmp_path / "weights.yaml"))


def test_balance_needs_an_example_of_each_class():
    with pytest.raises(ConfigError, match="but there is no training example of dog; choose with --classes"):
        weigh("balanced", None, source(5, 0, 25))
