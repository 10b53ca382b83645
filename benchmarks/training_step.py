"""Time of one optimisation step.

Timed: everything that `Trainer.fit` does for a batch, which is at hand with its neighbours: zero gradients, forward,
S - 1 steps of velocity Verlet (with neighbours renewed on the way), loss, metrics, backward, clipping at 1, Adam. Not
timed: loading, callbacks, loggers, validation. For what is timed of the reference code see `benchmarks.reference`; it
takes the neighbours of later steps from the first frame. All contenders see the same systems, float32, on the same
threads, in turn.

The other representations have the width and depth of the paper's EGNN and 20 Gaussians, and are trained by the same
task in the detached mode, whose time the gradient modes multiply alike. The stock task is SchNetPack's own, which
knows S = 1, with SchNetPack's own outputs: MAE of energy and forces, and sees no pairs beyond the cutoff.
"""

from collections.abc import Sequence

from benchmarks.equality import check_equal
from benchmarks.models import MODELS, LightningSteps, data_of, task_of
from benchmarks.reference import ReferenceSteps
from benchmarks.settings import Settings
from benchmarks.systems import batch_of, spread, windows_of, within
from benchmarks.tables import table
from benchmarks.timing import alternate, ratio, seconds

__all__ = ["MODES", "run"]

#: gradient mode -> overrides
MODES: dict[str, tuple[str, ...]] = {
    "detached": ("task/gradient=detached",),
    "full": ("task/gradient=full",),
    "truncated(k=4)": ("task/gradient=truncated", "task.gradient.k=4"),
}


def run(
    settings: Settings,
    lengths: Sequence[int] = (1, 5, 20),
    models: Sequence[str] = tuple(MODELS),
    modes: Sequence[str] = tuple(MODES),
    also: Sequence[str] = (),
) -> str:
    """Table of times.

    Args:
        settings: how to measure.
        lengths: values of S.
        models: names in `benchmarks.models.MODELS`.
        modes: gradient modes of the EGNN.
        also: overrides, separated by spaces, each of which makes one more EGNN in the first mode.
    """
    window = f"globals.max_rollout_length={max(20, *lengths)}"  # the same windows whatever is measured
    config = settings.config(window)
    datamodule = data_of(config)
    indices = spread(datamodule, settings.n_systems)
    batch, windows = batch_of(datamodule, indices), windows_of(datamodule, indices)
    near = within(batch, float(config.globals.cutoff))
    reference = settings.their_code()
    note = ""
    if reference is not None:
        note = check_equal(config, reference, batch, reference.batch([window[:1] for window in windows]))

    rows = []
    for n_steps in lengths:
        common = (window, f"task.rollout_length={n_steps}")
        variants = {f"EGNN, {mode}": ("EGNN", MODES[mode], False) for mode in modes if "EGNN" in models}
        variants |= {f"EGNN, {text}": ("EGNN", (*MODES[modes[0]], *text.split()), False) for text in also}
        for model in models:
            if model != "EGNN":
                variants[f"{model}, detached"] = (model, MODES["detached"], False)
                if n_steps == 1:
                    variants[f"{model}, stock task"] = (model, (), True)
        steps = {}
        for name, (model, overrides, stock) in variants.items():
            variant = settings.config(*common, model=model) if stock else None
            variant = variant or settings.config(*common, *overrides, model=model)
            used = near if stock else batch
            steps[name] = LightningSteps(task_of(variant, stock=stock), datamodule, used, variant, settings.device)
        contenders = {name: settings.clock.timed(step) for name, step in steps.items()}
        if reference is not None:
            contenders["reference code"] = ReferenceSteps(reference, windows, n_steps, settings.clock)
        usual = {1: 15, 5: 7}.get(n_steps, 3)
        times = alternate(contenders, settings.rounds(usual), warm_up=2 if n_steps < 10 else 1)
        for step in steps.values():
            step.close()
        theirs = times.get("reference code")
        for name, values in times.items():
            rows.append((n_steps, name, seconds(values), "" if theirs is None else ratio(theirs, values)))
    n_atoms, n_pairs = (len(near[key]) for key in ("_atomic_numbers", "_idx_i"))
    header = ("S", "model", f"{settings.clock.name} / ms", "reference / this")
    title = f"Training step: {settings.n_systems} systems, {n_atoms} atoms, {n_pairs} edges"
    return table(title, header, rows, note)
