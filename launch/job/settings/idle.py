"""Settings that are given and do nothing in this run, which is said rather than left to be found out."""

from collections.abc import Iterator


def idle(c, total_steps: int, *, freezes: bool) -> Iterator[str]:
    """A sentence for each.

    Args:
        c: the whole ``TrainConfig``.
        total_steps: of the run.
        freezes: whether the network has layers that do not train.
    """
    if not (c.early_stopping_patience or c.plateau_patience):
        for flag, given in (("min-delta", c.min_delta), ("threshold-mode", c.threshold_mode)):
            if given not in (0, "abs"):
                yield f"--{flag} {given} has no effect without --early-stopping-patience or --plateau-patience"
    if c.base_batch_size is not None and c.lr_scaling == "none":
        yield f"--base-batch-size {c.base_batch_size} has no effect with --lr-scaling none"
    if c.features_dir is not None and (not freezes or (c.augment != "none" and c.cache_views is None)):
        why = f"with --augment {c.augment} and no --cache-views" if freezes else "as no layer is frozen"
        yield f"--features-dir {c.features_dir} has no effect, {why}"
    if c.profile_steps and c.profile_steps[0] > total_steps:
        first, last = c.profile_steps
        yield f"--profile-steps {first},{last} has no effect, as the last step is {total_steps}"
