"""The stream of batches: the same order and pixels for any number of replicas, validation exactly once."""

import numpy as np
import pytest
import small_images
import tensorflow as tf
from small_images import N, joined

from data import pipeline
from data.datasets import ArraySource
from data.diagnose import diagnose
from data.files.source import FileSource
from data.order import Order, SequentialOrder, Share

G = 12  # global batch: divisible by 1, 2, 3 and 4 replicas
WHOLE = Share(0, 1)

arrays = pytest.fixture(small_images.arrays, scope="module")
files = pytest.fixture(small_images.files, scope="module")


def stream(source, *, replicas=1, share=WHOLE, start_step=0, steps=1, augment="flip_crop", threads=2, seed=5):
    """`steps` elements of a worker's training stream, as lists of arrays."""
    dataset = pipeline.training_batches(
        source,
        order=Order(examples=len(source), seed=seed, replica_batch=G // replicas, replicas=replicas),
        share=share,
        start_step=start_step,
        augment=augment,
        image_size=16,
        threads=threads,
    )
    return [tuple(x.numpy() for x in batch) for batch in dataset.take(steps)]


@pytest.mark.parametrize(
    ("kind", "augment", "counts"),
    [("arrays", "flip_crop", (2, 3, 4)), ("arrays", "inception", (3,)), ("files", "flip_crop", (2,))]
    + [("files", "inception", (3,))],
)
def test_same_order_and_pixels_for_any_number_of_replicas(kind, augment, counts, request):
    """Five steps, over two epoch boundaries: one process, Mirrored (one stream) and Horovod (a stream per rank)."""
    source = request.getfixturevalue(kind)
    images, labels, ids = joined(stream(source, steps=5, augment=augment))
    assert images.shape == (5 * G, 16, 16, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int32 and ids.dtype == np.int64
    assert (labels == source.labels[ids]).all()
    for replicas in counts:
        mirrored = stream(source, replicas=replicas, steps=5 * replicas, augment=augment)
        ranks = [
            stream(source, replicas=replicas, share=Share(r, replicas), steps=5, augment=augment, threads=1 + r)
            for r in range(replicas)
        ]
        horovod = [ranks[r][step] for step in range(5) for r in range(replicas)]
        for other in (mirrored, horovod):
            for expected, got in zip((images, labels, ids), joined(other), strict=True):
                assert (expected == got).all()


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_restart_continues_where_the_run_was(arrays, replicas):
    last = Share(replicas - 1, replicas)
    whole = stream(arrays, replicas=replicas, share=last, steps=6)
    rest = stream(arrays, replicas=replicas, share=last, steps=3, start_step=3)
    for expected, got in zip(whole[3:], rest, strict=True):
        assert all((e == g).all() for e, g in zip(expected, got, strict=True))


def test_an_epoch_holds_every_sample_at_most_once(arrays):
    ids = joined(stream(arrays, steps=6))[2].reshape(3, 2 * G)  # three epochs of two steps
    for epoch in ids:
        assert len(set(epoch)) == 2 * G
    assert (ids[0] != ids[1]).any() and set(ids[0]) != set(ids[1])
    assert set(ids.ravel()) == set(range(N))  # who is left out changes


def test_augmentation_changes_with_the_epoch_only(arrays):
    images, _, ids = joined(stream(arrays, steps=4))
    first, second = (dict(zip(ids[s], images[s], strict=True)) for s in (slice(24), slice(24, 48)))
    common = first.keys() & second.keys()
    assert np.mean([(first[i] != second[i]).any() for i in common]) > 0.9
    plain, _, ids = joined(stream(arrays, steps=4, augment="none"))
    assert (plain == arrays.pixels[ids]).all()


@pytest.mark.parametrize(
    ("kind", "n", "batch", "replicas"),
    [("arrays", *case) for case in ((1, 2, 3), (2, 4, 3), (12, 4, 3), (13, 4, 3), (7, 5, 1), (31, 4, 2))]
    + [("files", 7, 2, 3)],
)
def test_validation_sees_every_example_exactly_once(kind, n, batch, replicas, request):
    whole = request.getfixturevalue(kind)
    if kind == "arrays":
        source = ArraySource("part", whole.classes, whole.pixels[:n], whole.labels[:n])
    else:
        source = FileSource("part", whole.classes, whole.root, list(whole.paths)[:n], whole.labels[:n])

    order = SequentialOrder(examples=n, replica_batch=batch, replicas=replicas)

    def elements(share):
        dataset = pipeline.validation_batches(
            source, order=order, share=share, augment="none", image_size=16, threads=2
        )
        assert [spec.shape.as_list() for spec in dataset.element_spec] == [[batch, 16, 16, 3], [batch], [batch]]
        assert dataset.cardinality().numpy() == order.steps * replicas // share.count
        return [tuple(x.numpy() for x in element) for element in dataset]

    ranks = [elements(Share(r, replicas)) for r in range(replicas)]
    assert {len(rank) for rank in ranks} == {order.steps}
    images, labels, weights = joined([rank[step] for step in range(len(ranks[0])) for rank in ranks])
    assert weights.sum() == n and set(weights) <= {0.0, 1.0}
    assert (labels[weights == 1] == source.labels).all()
    if kind == "arrays":
        assert (images[weights == 1] == source.pixels).all()
    for expected, got in zip((images, labels, weights), joined(elements(WHOLE)), strict=True):
        assert (expected == got).all()


def test_training_shapes_are_static(files):
    dataset = pipeline.training_batches(
        files,
        order=Order(examples=N, seed=0, replica_batch=4, replicas=3),
        share=Share(0, 3),
        start_step=0,
        augment="inception",
        image_size=24,
        threads=1,
    )
    assert [spec.shape.as_list() for spec in dataset.element_spec] == [[4, 24, 24, 3], [4], [4]]
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


def test_an_order_of_other_examples_is_refused(arrays):
    with pytest.raises(AssertionError, match="30 examples .* 31"):
        pipeline.training_batches(
            arrays,
            order=Order(examples=30, seed=0, replica_batch=4, replicas=1),
            share=WHOLE,
            start_step=0,
            augment="none",
            image_size=16,
            threads=1,
        )
    order = SequentialOrder(examples=32, replica_batch=4, replicas=1)
    with pytest.raises(AssertionError, match="32 examples .* 31"):
        pipeline.validation_batches(arrays, order=order, share=WHOLE, augment="none", image_size=16, threads=1)


@pytest.mark.parametrize("size", [12, 16, 24])
def test_images_in_memory_take_the_asked_size(arrays, size):
    order = SequentialOrder(examples=N, replica_batch=N, replicas=1)
    dataset = pipeline.validation_batches(
        arrays, order=order, share=WHOLE, augment="inception", image_size=size, threads=1
    )
    images = next(iter(dataset))[0].numpy()
    assert images.shape == (N, size, size, 3) and images.std() > 20


@pytest.mark.parametrize("name", ["5.jpg", "4.png"])
@pytest.mark.parametrize("damage", ["truncated", "no image", "missing"])
def test_a_damaged_file_ends_the_run_and_is_named(files, tmp_path, name, damage):
    for path in files.paths:
        (tmp_path / path).write_bytes(tf.io.read_file(f"{files.root}/{path}").numpy())
    source = FileSource("made", files.classes, str(tmp_path), files.paths, files.labels)
    source.turned = 0
    assert diagnose(source, range(N)) is None
    bad = tmp_path / name
    if damage == "missing":
        bad.unlink()
    else:
        bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2] if damage == "truncated" else b"<html>no</html>")
    with pytest.raises(tf.errors.OpError):
        stream(source, steps=6, augment="none")
    message = diagnose(source, range(N))
    assert message.startswith(f"{bad}: ") and len(message) > len(f"{bad}: ") + 5 and "\n" not in message
    assert "{{" not in message and "[Op" not in message


def test_batches_made_in_parts_are_the_same(files, monkeypatch):
    """What is in the making is bounded in bytes: by parts of a batch, which are put together in order."""
    assert pipeline.parts_of(4096, 224, 64) == 64 and pipeline.parts_of(128, 224, 16) == 1
    assert pipeline.parts_of(7, 10**6, 1) == 7
    order = SequentialOrder(examples=N, replica_batch=6, replicas=2)
    how = {"order": order, "share": Share(1, 2), "augment": "none", "image_size": 16, "threads": 2}

    def batches():
        shown = [pipeline.validation_batches(files, **how), pipeline.prediction_batches(files, **how)]
        return stream(files, replicas=2, share=Share(1, 2), steps=5, start_step=2) + [
            tuple(x.numpy() for x in element) for dataset in shown for element in dataset
        ]

    whole = batches()
    monkeypatch.setattr(pipeline, "IN_THE_MAKING", 2 * 2 * 16 * 16 * 3)
    assert pipeline.parts_of(6, 16, 2) == 3
    for expected, got in zip(whole, batches(), strict=True):
        for one, other in zip(expected, got, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
