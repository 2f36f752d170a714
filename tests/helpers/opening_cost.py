"""What opening an image folder costs one rank: python tests/helpers/opening_cost.py make|open FOLDER [FILES].

`make` fills a folder with tiny pictures under names of ImageNet's form, 1,280 to a class; in /dev/shm a million of them
take 5 KB of memory each. `open` opens it as the first rank does, then from the listing as a run that goes on and as
another rank does, and prints seconds and MB: what the process has grown by, and what reading adds for TensorFlow.
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
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(content, "JPEG")
    for first in range(0, count, EACH):
        name = f"n{1440764 + first // EACH:08}"
        (folder / name).mkdir(parents=True)
        for number in range(first, min(first + EACH, count)):
            (folder / name / f"{name}_{number % 29000}.JPEG").write_bytes(content.getvalue())


def resident() -> float:
    """MB of memory that are this process's own, after giving back what is free."""
    import ctypes
    import gc

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def timed(what: str, function):
    before, began = resident(), time.perf_counter()
    result = function()
    seconds = time.perf_counter() - began
    print(f"{what}: {seconds:.2f} s, {resident() - before:+.0f} MB", flush=True)
    return result


def open_all(folder: Path) -> None:
    import tensorflow as tf

    from data import listing, open_checked, open_sources
    from data.formats.headers import check_pictures

    tf.constant(0)  # starts TensorFlow's devices
    place, kept = str(folder), folder.with_name(f"{folder.name}.zip")
    train, validation = timed("list", lambda: open_sources("image_folder", place, seed=0))
    train, _ = timed("look", lambda: check_pictures((train, validation)))
    timed("fingerprint", train.fingerprint)
    kept.write_bytes(timed("pack", lambda: listing.pack((train, None), [])).packed)
    print(f"{len(train):,} files, {kept.stat().st_size / 1e6:.1f} MB packed")
    del train, validation

    def again():
        found = listing.read(kept)
        assert listing.is_current(found, [])
        return found.sources[0]

    again_train = timed("again, in all", again)
    timed("first read", lambda: again_train.read(tf.constant([0, len(again_train) - 1], tf.int64)))
    del again_train
    total = timed("first start, in all", lambda: listing.pack(open_checked("image_folder", place, seed=0), []))
    print(f"{len(total.sources[0]):,} files")


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        open_all(Path(sys.argv[2]))
