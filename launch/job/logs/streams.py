"""Standard output and error that outlive whoever reads them: a closed terminal, or `| head -3`.

Whoever stops reading has seen enough; the run that writes goes on, and its files are what counts.
"""

import errno
import io
import os
import sys

GONE = (errno.EPIPE, errno.EIO, errno.ENXIO)  # a pipe without a reader, a terminal that was closed


class Unread(io.FileIO):
    """A file descriptor that becomes /dev/null as soon as nobody is there to read it, for all who write to it."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                raise
            self._fall_silent()
            return len(data)

    def _fall_silent(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def outlive_readers() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` of this process such streams; what a notebook or a test has put in their
    place stays."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        plain = type(getattr(stream, "buffer", None))
        if stream is not getattr(sys, f"__{name}__") or plain not in (io.BufferedWriter, io.FileIO):
            continue
        stream.flush()
        raw = Unread(stream.fileno(), "w", closefd=False)
        lasting = io.TextIOWrapper(
            io.BufferedWriter(raw) if plain is io.BufferedWriter else raw,  # python -u has no buffer
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, lasting)
        setattr(sys, f"__{name}__", lasting)
