"""Which shards there are to be, and which of them an earlier run has finished."""

from pathlib import Path

from data.datasets import DataError, Source
from data.formats.tfrecord.shards import UNFINISHED, Manifest, Shard, Split, read_manifest
from data.naming import is_litter


def plan(sources: dict[str, Source], dataset: str, shards: int, shorter_side: int | None) -> Manifest:
    """The manifest to be, without sizes and hashes: names of the shards and how many examples stand in each."""
    train = sources["train"]
    if not 1 <= shards <= len(train):
        raise DataError(f"--shards is {shards}, expected 1 to {len(train)}, the number of training images.")
    planned = {}
    for name, source in sources.items():
        count = min(len(source), max(1, round(shards * len(source) / len(train))))
        parts = [
            Shard(name=f"{name}-{k:05d}-of-{count:05d}.tfrecord", examples=stop - start)
            for k, (start, stop) in enumerate(blocks(len(source), count))
        ]
        planned[name] = Split(examples=len(source), fingerprint=source.fingerprint(), shards=parts)
    return Manifest(dataset=dataset, classes=list(train.classes), shorter_side=shorter_side, splits=planned)


def blocks(n: int, count: int) -> list[tuple[int, int]]:
    """`count` contiguous ranges (start, stop) that cover 0..n-1 in order and differ by at most one in length."""
    return [(n * k // count, n * (k + 1) // count) for k in range(count)]


def resume(out: Path, planned: Manifest) -> Manifest:
    """The plan, with size and hash filled in for each shard that an earlier run finished.

    Raises:
        DataError: `out` holds something else than the beginning of this very conversion.
    """
    recorded = read_manifest(out, UNFINISHED) or read_manifest(out)
    if recorded is None:
        if out.exists() and not all(is_litter(file.name) for file in out.iterdir()):
            raise DataError(f"--out {out} is not empty and holds no shards of this command; give an empty folder.")
        return planned
    blank = recorded.model_copy(deep=True)
    for shard in blank.every_shard():
        shard.bytes, shard.sha256 = 0, ""
    if blank != planned:
        raise DataError(
            f"--out {out} was begun with other images, labels, --shards or --shorter-side ({recorded.dataset}, "
            f"{recorded.splits['train'].examples} training images); empty it or give another folder."
        )
    return recorded
