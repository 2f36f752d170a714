"""The error that bad input raises."""


class DataError(ValueError):
    """Input that the user can mend: a missing folder, an unreadable image, a label out of range.

    Its message is one sentence: what came, what was expected, how to mend it. It ends the run with exit code 2.
    """
