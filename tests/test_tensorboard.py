"""Event files are taken back to where a resumed run begins."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from launch.job import tensorboard


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
