"""The error that a wrongly started or disagreeing set of workers raises."""


class WorldError(ValueError):
    """Workers that cannot act as one: wrongly launched, or started with different settings.

    Its message is one sentence: what came, what was expected, how to mend it. It ends the run with exit code 2.
    """
