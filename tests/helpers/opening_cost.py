"""What opening an image folder costs one rank: python tests/helpers/opening_cost.py make|first|again FOLDER [NUMBER].

`make` fills a folder with names of ImageNet's form, 1,280 to a class, which are links to one small picture per class.
`first` opens it as the first rank of a first start does, and leaves FOLDER.zip. `again` opens that, as a run that goes
on and as all other ranks do. Both print seconds, those of this process' core, and by how many MB it grows for what it
keeps. NUMBER is of files to make. `slow_calls.c` stands in for a file system of the network.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

EACH = 1280


def make(folder: Path, count: int) -> None:
    import io

    import numpy as np
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)).save(content, "JPEG")
    for first in range(0, count, EACH):
        name = f"n{1440764 + first // EACH:08}"
        (folder / name).mkdir(parents=True)
        places = [f"{folder}/{name}/{name}_{number % 29000}.JPEG" for number in range(first, min(first + EACH, count))]
        Path(places[0]).write_bytes(content.getvalue())
        for place in places[1:]:
            os.link(places[0], place)


def resident() -> float:
    """MB of memory that are this process's own, after giving back what is free."""
    import ctypes
    import gc

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def timed(what: str, function):
    before, worked, began = resident(), time.process_time(), time.perf_counter()
    result = function()
    seconds, work = time.perf_counter() - began, time.process_time() - worked
    print(f"{what}: {seconds:.2f} s, {work:.2f} s of a core, {resident() - before:+.0f} MB", flush=True)
    return result


def first(folder: Path, kept: Path) -> None:
    from data import DatasetConfig, open_sources
    from data.files import listing
    from data.pictures.check import check_pictures

    config = DatasetConfig("image_folder", str(folder), seed=0, validation_split=0)
    sources = timed("list folders", lambda: open_sources(config))
    sources = timed("look at files", lambda: check_pictures(sources))
    timed("fingerprint", sources[0].fingerprint)
    packed = timed("pack", lambda: listing.pack(sources, []).packed)
    kept.write_bytes(packed)
    print(f"{len(sources[0]):,} files, {len(packed) / 1e6:.1f} MB packed")


def again(kept: Path) -> None:
    import tensorflow as tf

    from data.files import listing

    found = timed("read the listing", lambda: listing.read(kept))
    print("current:", timed("ask for its folders", lambda: listing.is_current(found, [])))
    source = found.sources[0]
    found = None
    timed("the paths of TensorFlow", lambda: source.read(tf.constant([0, len(source) - 1], tf.int64)))


def main(what: str, folder: Path, count: int) -> None:
    if what == "make":
        make(folder, count)
        return
    import tensorflow as tf

    import data  # noqa: F401 (loaded before anything is measured)

    tf.constant(0)  # starts TensorFlow's devices
    kept = folder.with_name(f"{folder.name}.zip")
    first(folder, kept) if what == "first" else again(kept)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else 0)
