"""Data sets as people have them: layouts of folders, tables, archives and shards, and what is said of each."""

import os

import numpy as np
import pytest
import tensorflow as tf

from data import load
from data.datasets import DataError

JPEG = tf.io.encode_jpeg(np.full((6, 8, 3), 90, np.uint8)).numpy()
PNG = tf.io.encode_png(np.full((6, 8, 3), 90, np.uint8)).numpy()


def put(root, *names, content=JPEG):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def opened(dataset, place, **how):
    return load(dataset, str(place), **{"seed": 0, "validation_split": 0} | how)


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


def layouts_of_before(root):
    """One data set of each kind that Lockstep 0.1 opened: name -> (dataset, place)."""
    put(root / "flat", "b/2.jpg", "b/10.jpg", "a/x.JPEG", "a/.hidden", content=b"\xff\xd8\xff\xda" + bytes(90))
    put(root / "numbers", *(f"{number}/1.png" for number in (0, 1, 2, 10, 11)), content=b"\x89PNG\r\n\x1a\n" + bytes(90))
    put(root / "split", "train/b/1.jpg", "train/b/2.jpg", "train/a/1.jpg", content=b"\xff\xd8\xff\xda" + bytes(70))
    put(root / "split", "validation/a/1.jpg", "validation/b/1.jpg", content=b"\xff\xd8\xff\xda" + bytes(80))
    put(root / "csv", "p/1.jpg", "p/2.jpg", "3.png", content=b"\xff\xd8\xff\xda" + bytes(60))
    (root / "csv" / "train.csv").write_text("label,path\nx 1,p/2.jpg\n0.5,p/1.jpg\nx 1,3.png\n")
    (root / "csv" / "val.csv").write_text("path,label\n3.png,0.5\np/1.jpg,x 1\n")
    (root / "csv" / "numbers.csv").write_text("path,label\np/1.jpg,02\np/2.jpg,0\n3.png,1\n")
    pixels = np.arange(6 * 4 * 4 * 3, dtype=np.uint32).astype(np.uint8).reshape(6, 4, 4, 3)
    np.savez(root / "set.npz", x_train=pixels, y_train=[0, 1, 2, 0, 1, 2], x_test=pixels[:2, ..., 0:1].repeat(3, 3), y_test=[1, 2])
    records = [{"image/encoded": bytes([number]) * 40, "image/class/label": number % 2} for number in range(4)]
    shard(root / "shards" / "train-00000-of-00001", records)
    shard(root / "shards" / "val-00000-of-00001.tfrecord", records[:2])
    folders = {name: ("image_folder", root / name) for name in ("flat", "numbers", "split")}
    tables = {"csv": ("csv", root / "csv"), "csv numbers": ("csv", root / "csv" / "numbers.csv")}
    return folders | tables | {"npz": ("npz", root / "set.npz"), "tfrecord": ("tfrecord", root / "shards")}
