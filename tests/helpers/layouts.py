"""Data sets on the disk, put together from names, and opened as a run opens them."""

import numpy as np
import tensorflow as tf

from data import DatasetConfig, load

JPEG = tf.io.encode_jpeg(np.full((6, 8, 3), 90, np.uint8)).numpy()
PNG = tf.io.encode_png(np.full((6, 8, 3), 90, np.uint8)).numpy()


def put(root, *names, content=JPEG):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def opened(dataset, place, **how):
    return load(DatasetConfig(dataset, str(place), **{"seed": 0, "validation_split": 0} | how))


def folder(place, **how):
    return opened("image_folder", place, **how)


def paths(source):
    return [source.where(index) for index in range(len(source))]


def shard(file, features, options=None):
    """A TFRecord file of examples, each {name: bytes or int}."""

    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file), options) as writer:
        for values in features:
            named = tf.train.Features(feature={name: feature(value) for name, value in values.items()})
            writer.write(tf.train.Example(features=named).SerializeToString(deterministic=True))
