"""Files that are all written, or none."""

import contextlib
import os
from pathlib import Path

from launch.comparison.files import ComparisonError


def write(files: dict[Path, bytes]) -> None:
    """Write files of one folder, which is made where it is missing; each replaces an earlier one when all are there.

    Raises:
        ComparisonError: one of them cannot be written; what was there before is as it was.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    made = []
    try:
        for path, content in files.items():
            made += [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(None, "there is a folder of that name", str(path))
            temporary[path].write_bytes(content)
        for path in files:
            temporary[path].replace(path)
    except OSError as error:
        for file in temporary.values():
            with contextlib.suppress(OSError):
                file.unlink()
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise ComparisonError(f"{path} cannot be written ({error.strerror}); mend that or give another --out") from None
