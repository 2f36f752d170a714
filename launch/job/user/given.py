"""What a user brings to a run besides the settings: a network, data, callbacks, as Python objects or from a file; a
schedule and class weights, from files."""

from dataclasses import dataclass, field

from launch.job.config import ConfigError, TrainConfig
from launch.job.user import code as user_code
from launch.job.user.callbacks import check_callbacks
from launch.job.user.class_weights import BALANCED, WeightsFile, read_weights


@dataclass(frozen=True)
class UserCode:
    """
    Attributes:
        model: ``(classes, image_size) -> keras.Model``, or None for the one that the settings name.
        data: the examples, or a function that returns them, see ``data.open_data``; None as above.
        callbacks: Keras callbacks.
        has_callbacks: whether any worker has some: with Horovod people often give them to rank 0 alone.
        schedule: gives learning rates, see ``schedule.py``; None where the settings name one of those built in.
        class_weights: those of a file; None where the settings name none.
        sha256: flag -> SHA-256 of the file that its value came from.
    """

    model: user_code.UserFunction | None = None
    data: object = None
    callbacks: list = field(default_factory=list)
    has_callbacks: bool = False
    schedule: user_code.UserFunction | None = None
    class_weights: WeightsFile | None = None
    sha256: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, config: TrainConfig, *, model=None, data=None, callbacks=()) -> "UserCode":
        """Python objects as they are, and for each that is missing the function that the settings name, if they do.

        Raises:
            ConfigError, UserCodeError: a file or function that cannot be used.
        """
        objects = {"model": model, "dataset": data, "callbacks": callbacks or None}
        for name, given in objects.items():
            if given is not None and name in config.model_fields_set and getattr(config, name) is not None:
                setting = f"{name}={getattr(config, name)!r}"
                raise ConfigError(f"{setting} was given beside a Python object that takes its place; give one of them")
        files = {
            flag: user_code.load_function(reference, f"--{flag}")
            for flag, reference in (
                ("model", config.model),
                ("dataset", config.dataset),
                ("callbacks", config.callbacks),
                ("schedule", config.schedule),
            )
            if reference is not None and user_code.is_reference(reference)
        }
        if (model is not None or "model" in files) and config.dropout is not None:
            raise ConfigError(
                f"--dropout {config.dropout} is for the networks of models/, but the network is your own; set the rate "
                "of its dropout layers there"
            )
        if (data is not None or "dataset" in files) and config.data_dir is not None:
            raise ConfigError(
                f"--data-dir {config.data_dir} was given, but your own function opens the data; leave it out"
            )
        own = user_code.wrap(callbacks, "callbacks") or files.get("callbacks", ())
        if model is not None and not callable(model):
            raise ConfigError(
                f"model is a {type(model).__name__}, but must be a function (classes, image_size) that builds one; "
                "a network of models/ is chosen by TrainConfig(model=...)"
            )
        weights = None
        if config.class_weights not in (None, BALANCED):
            weights = files["class-weights"] = read_weights(config.class_weights)
        return cls(
            model=files.get("model") if model is None else user_code.wrap(model, "model"),
            data=files.get("dataset") if data is None else user_code.wrap(data, "data"),
            callbacks=check_callbacks(own),
            schedule=files.get("schedule"),
            class_weights=weights,
            sha256={flag: file.sha256 for flag, file in files.items()},
        )

    def model_name(self, config: TrainConfig) -> str:
        """What files and messages call the network."""
        return config.model if self.model is None else getattr(self.model, "name", "model")

    def data_name(self, config: TrainConfig) -> str:
        """What files and messages call the data."""
        if self.data is None:
            return config.dataset
        return self.data.name if isinstance(self.data, user_code.UserFunction) else "arrays"

    def named(self, config: TrainConfig) -> dict[str, str]:
        """Settings under which ``config.yaml`` keeps what came as Python objects, so that nobody repeats the run from
        that file with another network or other data in silence."""
        own = {"model": (self.model, config.model), "dataset": (self.data, config.dataset)}
        names = {"model": self.model_name(config), "dataset": self.data_name(config)}
        return {
            name: f"{names[name]} (a Python object)"
            for name, (given, setting) in own.items()
            if given is not None and not user_code.is_reference(setting)
        }
