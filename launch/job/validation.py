"""One validation: every example once over all workers, in compiled calls, with an ear for those who want to leave."""

import time
from collections.abc import Callable

from distributed.health import heartbeat
from distributed.model import LockstepModel
from launch.job.notices import Noticed, Notices
from launch.job.preparation.inputs import Inputs

SECONDS = 0.25  # that a call should take, after which the workers ask each other


class Validation:
    """Validates, once per epoch."""

    def __init__(self, inputs: Inputs, model: LockstepModel, notices: Notices, call: Callable):
        """Args: ``call(event, *arguments)`` lets the user's callbacks have their say."""
        self._inputs, self._model, self._notices, self._call = inputs, model, notices, call
        self._traced = False
        self._seconds = 0.0  # of a step, on the slowest worker; 0 until it is known

    def look_at(self, inputs: Inputs) -> None:
        """Validate on these from now on."""
        self._inputs, self._traced = inputs, False

    def run(self) -> dict[str, float]:
        """The global metrics of the validation set; all workers must call it.

        Raises:
            Noticed: on all workers, if one of them asked to leave; with the metrics that the training had until then.
        """
        model, steps = self._model, self._inputs.validation_steps
        # From here on the metrics are those of the validation: whoever leaves takes those of the training along.
        training_states = model.metric_states()
        model.reset_metrics()
        self._call("on_test_begin")
        batches, done, count = iter(self._inputs.validation_batches()), 0, 1
        while done < steps:
            count, began = min(count, steps - done), time.perf_counter()
            # The first call of the first validation holds the tracing of the graph.
            phase = "validation" if self._traced else "first validation"
            heartbeat.enter(phase, expected=count * self._seconds)
            self._call("on_test_batch_begin", done)
            model.evaluate(batches, count)
            self._traced, done = True, done + count
            heartbeat.enter("validation")
            self._call("on_test_batch_end", done - 1)
            names, seconds = self._notices.ask((time.perf_counter() - began) / count)
            if names:
                raise Noticed(names, training_states)
            self._seconds = max(seconds)
            # From answers that are the same everywhere, so that all take calls of one length.
            count = max(1, min(4 * count, int(SECONDS / self._seconds)))
        found = model.results()
        self._call("on_test_end", dict(found))
        return found
