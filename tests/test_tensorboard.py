"""Event files are taken back to where a resumed run begins."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from launch.job.logs import tensorboard


def test_torn_event_files_are_cut_at_the_tear(tmp_path):
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(tmp_path))
    for step in range(1, 7):
        with writer.as_default(step=step):
            tf.summary.scalar("step/loss", float(step))
    writer.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    assert tensorboard.rewind(tmp_path, 100, 100)
    assert [step for step, _ in curves_of(tmp_path)["step/loss"]] == [1, 2, 3, 4, 5]
    assert tensorboard.rewind(tmp_path, 3, 100)
    assert [step for step, _ in curves_of(tmp_path)["step/loss"]] == [1, 2, 3]
    assert not tensorboard.rewind(tmp_path, -1, -1) and not list(tmp_path.iterdir())


def curves_of(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {tag: [(event.step, None) for event in accumulator.Tensors(tag)] for tag in accumulator.Tags()["tensors"]}


def test_events_put_together_by_hand_are_those_of_the_library(tmp_path):
    import tensorflow as tf
    from tensorboard.compat.proto.event_pb2 import Event

    values = {"step/learning_rate": 0.1, "step/loss": 2.5, "step/images_per_second": 12345.678}
    writer = tf.summary.create_file_writer(str(tmp_path))
    with writer.as_default(step=300):
        for tag, value in values.items():
            tf.summary.scalar(tag, value)
    writer.close()
    (path,) = tmp_path.iterdir()
    written = [Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    expected = [value for event in written for value in event.summary.value]
    ours = Event.FromString(tensorboard.scalar_event(1234.5, 300, values))
    assert (ours.wall_time, ours.step) == (1234.5, 300)
    assert [value.metadata for value in ours.summary.value] == [value.metadata for value in expected]
    for one, other in zip(ours.summary.value, expected, strict=True):
        assert one.tag == other.tag and tf.make_ndarray(one.tensor) == tf.make_ndarray(other.tensor)


def test_step_numbers_of_any_size():
    from tensorboard.compat.proto.event_pb2 import Event

    for step in (0, 1, 127, 128, 16_383, 16_384, 2**31, 2**40):
        assert Event.FromString(tensorboard.scalar_event(0.0, step, {"step/loss": 1.0})).step == step
