"""TrainConfig: the one description of a run, and the only home of defaults.

``launch/job/arguments.py`` fills it from the command line and a file.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, get_args

import pydantic
import pydantic_core
import yaml
from pydantic import Field


class ConfigError(ValueError):
    """A setting the user can mend; its message is one sentence. It ends the run with exit code 2."""


Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
# A function of the user's, as ``launch/job/user/code.py`` loads it.
FileFunction = Annotated[str, Field(pattern=r"\.py(:|$)|^[^:]*[./][^:]*:")]


class TrainConfig(pydantic.BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """Train an image classifier on one or many workers, with the same result."""

    strategy: Literal["auto", "single", "mirrored", "horovod"] = "auto"
    """How to run; auto: several processes -> horovod, several GPUs -> mirrored, else single."""
    model: (
        Literal[
            "alexnet",
            "alexnet_bn",
            "alexnet_2012",
            "alexnet_cifar",
            "vgg11",
            "vgg13",
            "vgg16",
            "vgg19",
            "vgg11_bn",
            "vgg13_bn",
            "vgg16_bn",
            "vgg19_bn",
            "resnet20",
            "resnet56",
        ]
        | FileFunction
    ) = "alexnet_cifar"
    """Architecture; alexnet_cifar is the small one for 32x32 images. Or your own: FILE.py:FUNCTION, called with
    (classes, image_size)."""
    dataset: Literal["shapes", "cifar10", "image_folder", "tfrecord", "csv", "npz", "hdf5"] | FileFunction = "shapes"
    """Where examples come from; shapes is generated and needs no files. Or your own: FILE.py:FUNCTION, called without
    arguments."""
    data_dir: Path | None = None
    """Folder (or file) of the data set."""
    classes: str | None = None
    """Train on these classes alone, in this order: names with commas between, or a file with one per line."""
    image_feature: str | None = None
    """Name of the feature of TFRecords that holds the encoded image; default: image/encoded."""
    label_feature: str | None = None
    """Name of the feature of TFRecords that holds the label; default: image/class/label."""
    validation_split: Share = 0.1
    """Part of the training examples held out where the data set has no validation split of its own."""
    image_size: Positive | None = None
    """Height and width in pixels that the model sees; default: the data's own size, else the model's."""
    callbacks: FileFunction | None = None
    """FILE.py:FUNCTION, called without arguments, returns a list of your own Keras callbacks."""
    augment: Literal["none", "flip_crop", "inception"] = "none"
    """flip_crop: pad, crop, flip; inception: random area and aspect, flip, colour."""

    epochs: Positive = 6
    """Passes over the training examples."""
    steps_per_epoch: Positive | None = None
    """Cap on the steps of an epoch."""
    steps_per_call: Literal["auto"] | Positive = "auto"
    """Optimizer steps that one compiled call takes at most; auto: as many as fit into a tenth of a second. No result
    depends on it."""
    batch_size: Positive | None = None
    """Examples per replica and micro-batch (64 if neither batch size is given)."""
    global_batch_size: Positive | None = None
    """Examples per optimizer step of the whole run; must divide by replicas x accumulate-steps."""
    accumulate_steps: Positive = 1
    """Micro-batches that a replica adds up before each optimizer step."""
    micro_batch_size: Positive | None = None
    """Examples that a replica computes at a time; accumulate-steps follows. With deterministic: the same bits for any
    number of workers."""

    optimizer: Literal["sgd", "rmsprop", "adam", "adagrad", "adadelta", "adamax", "nadam"] = "sgd"
    """Keras' optimizer of that name."""
    momentum: Share | None = None
    """Momentum of sgd (default 0.9) and rmsprop (default 0); the others have none."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled decay, as Keras: w -= learning rate x decay x w in each step."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest global norm of the reduced gradient."""

    learning_rate: Annotated[float, Field(gt=0)] = 0.002
    """Base rate, for base-batch-size examples per step."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the rate grows with global batch / base batch."""
    base_batch_size: Positive | None = None
    """Batch of the base rate; default: batch-size where given, the global batch where that was given."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    """Epochs over which the rate grows from the unscaled to the scaled one."""
    schedule: Literal["constant", "cosine", "step", "polynomial"] = "cosine"
    """Shape of the rate after the warmup."""
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    """The rate never falls below it."""

    metrics: Annotated[tuple[Literal["accuracy", "top5", "precision", "recall", "auc"], ...], Field(min_length=1)] = (
        "accuracy",
    )
    """Comma-separated: accuracy, top5, precision, recall, auc; of training and validation, exact over all workers."""
    monitor: str = "auto"
    """Metric that decides on best, stop and plateau; auto: val_accuracy, or accuracy without validation."""
    monitor_mode: Literal["auto", "min", "max"] = "auto"
    """Whether less or more of it is better."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Smallest change that counts as an improvement."""
    threshold_mode: Literal["abs", "rel"] = "abs"
    """Whether min-delta is a difference or a part of the best value."""
    early_stopping_patience: Count = 0
    """Epochs without improvement after which training stops; 0: never."""
    start_from_epoch: Count = 0
    """Epochs at the beginning that early stopping does not look at."""
    baseline: float | None = None
    """Value that the monitored metric must improve on for early stopping to go on waiting."""
    restore_best_weights: bool = False
    """End with the weights of the best epoch, not of the last."""
    plateau_patience: Count = 0
    """Epochs without improvement after which the rate is reduced; 0: never."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the rate is then multiplied by."""
    plateau_cooldown: Count = 0
    """Epochs after a reduction in which none is counted."""

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the layers; weights stay float32, float16 scales the loss."""
    label_smoothing: Share = 0.0
    """Part of the target spread evenly over all classes."""
    dropout: Share | None = None
    """Dropout rate of the dense layers; default: the architecture's."""
    batch_norm_span: Literal["global"] | Positive = "global"
    """Examples by whose mean and variance BatchNormalization goes in training: so many consecutive ones, which must
    divide a replica's micro-batch; global: the micro-batch over all replicas (with deterministic and micro-batch-size
    the micro-batch alone)."""
    seed: Count = 0
    """Decides weights, order, augmentation, dropout and the validation split."""
    check_replicas: Count | None = None
    """Steps between two comparisons of weights and optimizer state over all replicas; default: each epoch; 0: never."""
    deterministic: bool = False
    """Bit-identical reruns at the same worker count; with micro-batch-size at any."""
    exchange: Literal["auto", "allreduce", "factors", "split"] = "auto"
    """How gradients of dense layers travel: summed, or as the factors they are the product of, or not at all, where two
    layers are split between the workers; auto: whichever is cheaper."""
    compression: Literal["none", "fp16"] = "none"
    """fp16: gradients that are summed travel as float16, half the bytes; an approximation."""

    run_dir: Path | None = None
    """Where the run's files go; default: runs/<model>-<dataset>-<time>."""
    resume: str = "auto"
    """auto: go on from run-dir's newest checkpoint; never: refuse a run-dir that has one; PATH: begin from that
    checkpoint, as long as run-dir has none of its own."""
    checkpoint_every_steps: Positive | None = None
    """Also save a checkpoint every so many steps, not only at the end of each epoch."""
    keep_checkpoints: Positive = 3
    """How many checkpoints to keep besides the best one."""

    hang_timeout: Annotated[float, Field(ge=0)] = 300.0
    """Seconds without a sign of life after which a rank that hangs is ended, with all others; 0: never."""
    cpu_devices: Positive | None = None
    """Split the CPU into this many devices, for mirrored where there is no GPU."""
    log_every_steps: Positive = 10
    """Steps between two points of the per-step TensorBoard curves."""
    histogram_epochs: Count = 0
    """Epochs between two weight histograms in TensorBoard; 0: none."""
    profile_steps: tuple[Positive, Positive] | None = None
    """A,B: trace steps A to B for TensorBoard's profiler."""
    verbose: bool = False
    """Show what TensorFlow and Open MPI print at start-up."""

    @pydantic.field_validator("profile_steps", "metrics", mode="before")
    @classmethod
    def _split_list(cls, value):
        return tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else value

    @pydantic.field_validator("data_dir", "run_dir", mode="before")
    @classmethod
    def _expand(cls, value):
        # A shell leaves --data-dir=~/photos as it is, and nothing expands what stands in a file.
        return os.path.expandvars(os.path.expanduser(value)) if isinstance(value, str) else value

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _none_in_words(cls, value, info):
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and annotation is not bool:
            # pydantic would take true for 1.
            raise pydantic_core.PydanticCustomError("switch", "a number or a word")
        optional = type(None) in get_args(annotation)
        return None if optional and isinstance(value, str) and value.lower() in ("none", "null") else value

    @pydantic.model_validator(mode="after")
    def _check_combinations(self):
        for problem in _problems(self):
            raise ValueError(problem)
        return self

    @property
    def exact(self) -> bool:
        """Whether the result must not depend on the number of workers, to the last bit."""
        return self.deterministic and self.micro_batch_size is not None


def choices(name: str) -> tuple[str, ...]:
    """The words among which a setting chooses, such as the names of the models; empty where it takes none."""

    def words(annotation):
        for part in get_args(annotation):
            yield from [part] if isinstance(part, str) else words(part)

    return tuple(words(TrainConfig.model_fields[name].annotation))


def _problems(c: TrainConfig):
    """Sentences about settings that do not go together."""
    if c.batch_size and c.global_batch_size:
        yield (
            f"--batch-size {c.batch_size} and --global-batch-size {c.global_batch_size} were both given; "
            "give one of them"
        )
    if c.micro_batch_size and not c.global_batch_size:
        batch = f"not --batch-size {c.batch_size}" if c.batch_size else "which was not given"
        yield (
            f"--micro-batch-size {c.micro_batch_size} cuts the global batch, {batch}; give --global-batch-size, or "
            "--micro-batch-size none"
        )
    if c.micro_batch_size and c.accumulate_steps > 1:
        yield (
            f"--micro-batch-size {c.micro_batch_size} and --accumulate-steps {c.accumulate_steps} were both given; "
            "the second follows from the first, leave it out"
        )
    if c.exact and c.compression != "none":
        yield (
            f"--compression {c.compression} approximates gradients, but --deterministic with --micro-batch-size asks "
            "for the same bits on any number of workers; leave one of them out"
        )
    if "accuracy" not in c.metrics:
        yield f"--metrics {','.join(c.metrics)} lacks accuracy, which every run reports; add it"
    if c.early_stopping_patience == 0 and (c.baseline is not None or c.start_from_epoch):
        flag = "--baseline" if c.baseline is not None else "--start-from-epoch"
        yield f"{flag} was given without --early-stopping-patience, to which it belongs; give both"
    if c.plateau_patience == 0:
        for name in ("plateau_factor", "plateau_cooldown"):
            if getattr(c, name) != TrainConfig.model_fields[name].default:
                flag = f"--{name.replace('_', '-')}"
                yield f"{flag} was given without --plateau-patience, to which it belongs; give both"
    if c.profile_steps and c.profile_steps[0] > c.profile_steps[1]:
        yield (
            f"--profile-steps {c.profile_steps[0]},{c.profile_steps[1]} runs backwards; "
            "give the first step, then the last"
        )
    if c.momentum is not None and c.optimizer not in ("sgd", "rmsprop"):
        yield f"--momentum {c.momentum} has no effect on --optimizer {c.optimizer}; leave it out, or use sgd or rmsprop"
    if c.cpu_devices and c.strategy not in ("auto", "mirrored"):
        yield (
            f"--cpu-devices {c.cpu_devices} belongs to the mirrored strategy, not to {c.strategy}; "
            "use --strategy mirrored"
        )
    if c.dataset in ("image_folder", "tfrecord", "csv", "npz", "hdf5") and c.data_dir is None:
        yield f"--dataset {c.dataset} was given without --data-dir; name the folder or file it lies in"
    for flag, given in (("image", c.image_feature), ("label", c.label_feature)):
        if given is not None and c.dataset != "tfrecord":
            yield f"--{flag}-feature {given} belongs to --dataset tfrecord, not to {c.dataset}; leave it out"
    if c.dataset == "shapes" and c.data_dir is not None:
        yield (
            f"--data-dir {c.data_dir} was given, but --dataset shapes is generated; "
            "name the data's kind with --dataset, for example image_folder"
        )


def save(config: TrainConfig, path: Path) -> None:
    """Write the complete configuration as a file for ``--config``."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
