"""A value that stands for the length of a ``with`` block and is seen by all that is called within it."""

import contextlib
import threading


class Scoped(threading.local):
    """``with scoped.set(value):`` - within the block ``scoped.value`` is that value, outside it is None.

    Thread-local, because MirroredStrategy traces the replicas in threads of their own.
    """

    value = None

    @contextlib.contextmanager
    def set(self, value):
        before, self.value = self.value, value
        try:
            yield value
        finally:
            self.value = before
