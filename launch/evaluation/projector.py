"""Files for TensorBoard's embedding projector: vectors, their labels, and a thumbnail for each point.

Format: https://github.com/tensorflow/tensorboard/blob/master/tensorboard/plugins/projector/projector_config.proto
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from distributed.checkpoint import disk
from launch.evaluation.sheet import letterboxed

CONFIG, TENSORS, METADATA, SPRITE = "projector_config.pbtxt", "features.bytes", "metadata.tsv", "thumbnails.png"
THUMBNAIL = 64  # pixels
# A browser takes thumbnails of 8192 x 8192 pixels in all, and grows slow long before that.
MOST = 4096


def sampled(n: int) -> np.ndarray:
    """Which of n pictures are shown, evenly over all of them: int64 [at most ``MOST``], in order."""
    return np.arange(n) if n <= MOST else np.arange(MOST) * n // MOST


def write(
    directory: Path,
    indices: np.ndarray,
    features: np.ndarray,
    columns: dict[str, Sequence[str]],
    picture: Callable[[int], np.ndarray],
) -> None:
    """Write the projector's files into a folder of TensorBoard's, the one that names the others last.

    Args:
        indices: int64 [m], the pictures shown, at most ``MOST``; see ``sampled``.
        features: float32 [m, d], the last hidden layer's output for each.
        columns: what is known of each, by name: label, predicted, path; m words each.
        picture: index -> uint8 [h, w, 3] of any size.

    Raises:
        OSError: naming the file.
    """
    m = len(indices)
    assert 0 < m <= MOST and len(features) == m and all(len(words) == m for words in columns.values())
    directory.mkdir(parents=True, exist_ok=True)
    tensors = np.ascontiguousarray(features, dtype="<f4")
    with disk.whole_file(directory / TENSORS) as beside:
        beside.write_bytes(tensors.tobytes())
    table = [tuple(columns), *zip(*columns.values(), strict=True)]
    text = "".join("\t".join(map(_one_word, row)) + "\n" for row in table)
    with disk.whole_file(directory / METADATA) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
    sprite = _sprite(indices, picture)
    with disk.whole_file(directory / SPRITE) as beside:
        sprite.save(beside, format="PNG")
    with disk.whole_file(directory / CONFIG) as beside:
        beside.write_text(_config(tensors.shape))


def _one_word(cell: str) -> str:
    """Tabs and line ends would be read as further columns and points."""
    return " ".join(str(cell).split()) or " "


def _sprite(indices: np.ndarray, picture: Callable[[int], np.ndarray]):
    """All thumbnails row by row in one square picture, as the projector cuts it."""
    from PIL import Image

    across = math.ceil(math.sqrt(len(indices)))
    sprite = Image.new("RGB", (across * THUMBNAIL, across * THUMBNAIL), "white")
    for number, index in enumerate(indices.tolist()):
        place = (number % across * THUMBNAIL, number // across * THUMBNAIL)
        sprite.paste(letterboxed(picture(index), THUMBNAIL), place)
    return sprite


def _config(shape: tuple[int, int]) -> str:
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig

    config = ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name="last hidden layer", tensor_path=TENSORS, tensor_shape=shape, metadata_path=METADATA
    )
    embedding.sprite.image_path = SPRITE
    embedding.sprite.single_image_dim.extend((THUMBNAIL, THUMBNAIL))
    return text_format.MessageToString(config)
