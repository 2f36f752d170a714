"""A file system whose calls are counted, and can be made slow; it stands below the loader, in the place of `os`."""

import os
import threading
import time
from collections import Counter


class Files:
    """The calls of `os` that reach a file system, while they are put through this.

    Attributes:
        calls: how often each function was called with each path, as (name, path); paths as strings.
        threads: for each of these, the threads that called it.
        in_flight: at each call, how many were waiting, with itself.
    """

    def __init__(self, monkeypatch, seconds: float = 0.0):
        self.calls: Counter[tuple[str, str]] = Counter()
        self.threads: dict[tuple[str, str], set[int]] = {}
        self.in_flight: list[int] = []
        self._seconds, self._waiting, self._lock = seconds, 0, threading.Lock()
        for name in ("stat", "open", "scandir", "listdir", "lstat"):
            monkeypatch.setattr(os, name, self._through(name, getattr(os, name)))

    def _through(self, name, real):
        def call(path=".", *arguments, **named):
            if not isinstance(path, int):
                with self._lock:
                    key = (name, os.fsdecode(path))
                    self.calls[key] += 1
                    self.threads.setdefault(key, set()).add(threading.get_ident())
                    self._waiting += 1
                    self.in_flight.append(self._waiting)
                if self._seconds:
                    time.sleep(self._seconds)
                with self._lock:
                    self._waiting -= 1
            return real(path, *arguments, **named)

        return call

    def of(self, name: str, below: str) -> dict[str, int]:
        """How often one function was called with each path below a folder, or with the folder itself."""
        return {path: count for (what, path), count in self.calls.items() if what == name and path.startswith(below)}
