"""What a run may do besides training from pictures: begin with weights, train on features, thaw layers."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from launch.job.config import TrainConfig
from launch.job.features import compute as features
from launch.job.notices import Noticed
from launch.job.preparation import freezing, stages, steps
from launch.job.weights import begin as weights

if TYPE_CHECKING:
    from launch.job.preparation.assemble import Training


def begin_with_weights(training: "Training") -> None:
    """Give the chief's network what ``--weights`` names."""
    config, strategy = training.config, training.strategy
    if config.weights is None:
        return
    begun = stages.together(
        strategy, lambda: weights.begin(config, training.model.network) if strategy.is_chief else None
    )
    begun = strategy.control.agree(begun and asdict(begun))
    training.checkpoints.facts["files"]["weights"] = begun["sha256"]
    training.begun_with = begun["sentences"]


def thaw(training: "Training") -> None:
    """Let frozen layers train from now on, and say so."""
    config, strategy, inputs = training.config, training.strategy, training.inputs
    may_split = not training.code.has_callbacks
    training.choices = steps.thaw(config, inputs.plan, strategy, training.model, training.calibration, may_split)
    training.model.network.optimizer = training.model.optimizer
    training.console.say(f"thawed: {freezing.sentence(training.model.network) or 'all layers train'}")
    if training.loop.batches is not None:

        def leave_on_request():
            names, _ = training.notices.ask(None)
            if names:
                raise Noticed(names, training.loop.metric_states)

        look_at_features(training, leave_on_request)


def look_at_features(training: "Training", between: Callable[[], None] | None = None) -> None:
    """Train on features where layers stay frozen and the run is better off with it; else on pictures.

    Args:
        between: see ``features.compute.prepare``.
    """
    config, progress, plan = training.config, training.progress, training.inputs.plan
    frozen = plan.total_steps if config.unfreeze_epoch is None else (config.unfreeze_epoch - 1) * plan.steps_per_epoch
    found = features.prepare(
        config,
        training.strategy,
        training.inputs,
        training.model.network,
        training.directory,
        training.console,
        wanted=_wanted(config, progress.thawed),
        steps=plan.total_steps - frozen if progress.thawed else frozen,
        fingerprints=training.fingerprints,
        between=between,
    )
    training.model.look_at(found and found.head)
    training.loop.look_at(found.inputs if found else training.inputs)


def _wanted(config: TrainConfig, thawed: bool) -> str:
    """Whether features are to be computed once in a phase: ``auto``, ``on`` or ``off``."""
    if config.cache_features != "on" and config.cache_views is None:
        return config.cache_features
    # Once layers have thawed, none may be left to compute once.
    return "auto" if thawed else "on"
