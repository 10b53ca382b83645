"""What a training must not change when it is resumed: its checkpoint tells what it was made with."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from ase.data import chemical_symbols

from spk_dt.folders.damage import reading
from spk_dt.models import is_plain, read_facts
from spk_dt.training.stored_model import read_stored
from spk_dt.trajectories.checked_database import read_metadata

__all__ = [
    "MADE_WITH",
    "MAY_DIFFER",
    "check_may_differ",
    "made_with",
    "made_with_of",
    "made_with_of_checkpoint",
    "refuse_another",
    "refuse_other_training",
]

#: what may differ in fine-tuning if it is wanted: its name for users, and in what `made_with` tells
MAY_DIFFER = {
    "time_step": "time step of the data in fs",
    "elements": "elements",
    "loss": "loss",
    "reference": "reference method of the data",
}

#: file beside a model that tells it
MADE_WITH = "made_with.json"


#: what to set right, by what differs
_OPTIONS = {
    "cutoff": "globals.cutoff",
    "time step of the data in fs": "data=trajectory and data.datapath",
    "units": "data.distance_unit and data.property_units",
    "elements": "data=trajectory and data.datapath",
    "loss": "task.outputs and task.rollout_outputs",
    "reference method of the data": "data=trajectory and data.datapath",
    "reference method of labels": "callbacks.on_policy.labels.reference",
}


def made_with(trainer: pl.Trainer, task: Any) -> dict[str, Any]:
    """What a training is made with, as far as it can be told: cutoff, time step, units, elements, loss, reference.

    Args:
        trainer: with data module and callbacks.
        task: any `schnetpack.AtomisticTask`.
    """
    found: dict[str, Any] = {"loss": [_loss(output) for output in task.outputs]}
    if (rolled := getattr(task, "rollout_outputs", None)) is not None:
        found["loss"].append("rollouts: " + ", ".join(output.name for output in rolled))
    if (cutoff := getattr(task, "cutoff", None)) is not None:
        found["cutoff"] = round(float(cutoff), 6)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
        if (labels := getattr(callback, "labels", None)) is not None and getattr(callback, "possible", True):
            found["reference method of labels"] = labels.reference
    if (frames := getattr(getattr(trainer, "datamodule", None), "frames", None)) is None:
        return found
    targets = [output.target_property for output in task.outputs]
    numbers = np.unique(np.concatenate([np.asarray(one) for one in frames.atomic_numbers]))
    found["time step of the data in fs"] = sorted({round(one.timestep_fs, 9) for one in frames.trajectories})
    found["units"] = {"length": str(frames.distance_unit)} | {key: str(frames.units.get(key)) for key in targets}
    found["elements"] = [chemical_symbols[z] for z in numbers]
    if Path(frames.source).is_file():
        reference = read_metadata(frames.source).get("reference")
        found["reference method of the data"] = reference
    return found


def made_with_of(model_file: Path) -> dict[str, Any]:
    """What a stored model was made with, as `made_with` tells it, as far as it is known; no code is run.

    Args:
        model_file: a file of `spk_dt.models`, which tells it; or a ``best_model`` with `MADE_WITH` beside it, or, as in runs
            of earlier versions, the last checkpoint of its run.
    """
    if is_plain(model_file):
        facts = read_facts(model_file)
        known = {
            "cutoff": round(facts.cutoff, 6),
            "time step of the data in fs": facts.time_step_fs,
            "elements": facts.elements,
            "loss": facts.loss,
            "reference method of the data": facts.reference,
        }
        return {name: value for name, value in known.items() if value}
    record, checkpoint = model_file.with_name(MADE_WITH), model_file.parent / "checkpoints" / "last.ckpt"
    if record.is_file():
        with reading(record, "record of a run", "Remove it, or put the right one there."):
            found = json.loads(record.read_text())
            if not isinstance(found, dict):
                raise ValueError("it is no mapping")
            return found
    return made_with_of_checkpoint(checkpoint) if checkpoint.is_file() else {}


def made_with_of_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """What a training was made with whose checkpoint this is, as far as the file tells it; no code is run."""
    try:
        callbacks = read_stored(checkpoint)["callbacks"]
        return dict(next(state["made_with"] for state in callbacks.values() if "made_with" in state))
    except Exception:  # of an earlier version, no checkpoint, or damaged, which is said where it is loaded
        return {}


def check_may_differ(may_differ: Sequence[str]) -> None:
    """Refuse names of what cannot differ.

    Args:
        may_differ: keys of `MAY_DIFFER`.

    Raises:
        ValueError: if one is not.
    """
    if unknown := [name for name in may_differ if name not in MAY_DIFFER]:
        raise ValueError(f"may_differ names '{unknown[0]}'; it may name {', '.join(MAY_DIFFER)}.")


def refuse_other_training(
    before: Mapping[str, Any], now: Mapping[str, Any], model: object, may_differ: Sequence[str] = ()
) -> None:
    """Refuse to fine-tune a model with what it was not trained with, unless that is wanted.

    What is not known of the model or of the data is not compared. Fewer elements or time steps are no others, and what a
    loss has beside that of the model was added by whoever set it.

    Args:
        before: what is known of the model, see `made_with_of`.
        now: see `made_with`.
        model: for the message.
        may_differ: keys of `MAY_DIFFER`, what is wanted.

    Raises:
        ValueError: with both values, and how to say that it is wanted.
    """
    for key, name in MAY_DIFFER.items():
        if key in may_differ or not before.get(name) or not now.get(name):
            continue
        ours, theirs = before[name], now[name]
        if key == "loss":
            same = set(ours) <= set(theirs)
        elif key == "reference":
            same = not _other_method(ours, theirs)
        else:
            same = set(theirs) <= set(ours)
        if not same:
            wanted = ",".join([*may_differ, key])
            raise ValueError(
                f"the model '{model}' was trained with {name} {ours}, and would be fine-tuned with {theirs}. Set "
                f"{_OPTIONS[name]} accordingly, or, if this is what you want, may_differ='[{wanted}]'."
            )


def _other_method(one: Any, other: Any) -> bool:
    """Whether two records name another reference method, or other settings; versions and how it was run do not count."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return bool(one != other)
    return any(one.get(key) != other.get(key) for key in ("reference", "parameters") if key in one and key in other)


def refuse_another(before: Mapping[str, Any], now: Mapping[str, Any], checkpoint: object) -> None:
    """Refuse to resume a training with what it was not made with.

    Args:
        before: what the checkpoint tells; nothing if it is of an older version.
        now: the same of the training that is about to go on.
        checkpoint: for the message.

    Raises:
        ValueError: with both values.
    """
    for name, option in _OPTIONS.items():
        if name in before and name in now and before[name] != now[name]:
            raise ValueError(
                f"the checkpoint '{checkpoint}' was made with {name} {before[name]}, and the training would go on with "
                f"{now[name]}. Set {option} as it was, or begin another training with another run.id."
            )


def _loss(output: Any) -> str:
    """A loss in words."""
    function = output.loss_fn
    kind = "none" if function is None else repr(function) if hasattr(function, "parameters") else str(function)
    return f"{output.name} of {output.target_property}: {type(output).__name__}, {kind}, weight {output.loss_weight:g}"
