"""What a user brings to a run besides the settings: a network, data, callbacks; as Python objects or from a file."""

from collections.abc import Callable
from dataclasses import dataclass, field

from launch.job import user_callbacks, user_code
from launch.job.config import TrainConfig


@dataclass(frozen=True)
class UserCode:
    """
    Attributes:
        model: ``(classes, image_size) -> keras.Model``, or None for the one that the settings name.
        data: the examples, or a function that returns them, see ``user_data.open_data``; None as above.
        callbacks: Keras callbacks.
        sha256: flag -> SHA-256 of the file that its value came from.
    """

    model: Callable | None = None
    data: object = None
    callbacks: list = field(default_factory=list)
    sha256: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, config: TrainConfig, *, model=None, data=None, callbacks=()) -> "UserCode":
        """Python objects as they are, and for each that is missing the function that the settings name, if they do.

        Raises:
            ConfigError, user_code.UserCodeError: a file or function that cannot be used.
        """
        functions = {
            flag: user_code.load_function(reference, f"--{flag}")
            for flag, reference in (("model", config.model), ("dataset", config.dataset), ("callbacks", config.callbacks))
            if reference is not None and user_code.is_reference(reference)
        }
        own = callbacks or functions.get("callbacks", ())
        return cls(
            model=model or functions.get("model"),
            data=functions.get("dataset") if data is None else data,
            callbacks=user_callbacks.check_callbacks(own),
            sha256={flag: function.sha256 for flag, function in functions.items()},
        )

    def model_name(self, config: TrainConfig) -> str:
        """What files and messages call the network."""
        return config.model if self.model is None else getattr(self.model, "name", None) or self.model.__name__

    def data_name(self, config: TrainConfig) -> str:
        """What files and messages call the data."""
        if self.data is None:
            return config.dataset
        return getattr(self.data, "name", None) or getattr(self.data, "__name__", "arrays")
