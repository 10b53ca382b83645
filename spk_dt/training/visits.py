"""Old name of on-policy labels; it goes in the version after this one."""

import logging
from dataclasses import fields
from typing import Any

from spk_dt.training.labelling import Labelling
from spk_dt.training.model_simulations import ModelSimulations
from spk_dt.training.on_policy import OnPolicyLabels, RoundSchedule

__all__ = ["VisitedStates"]

log = logging.getLogger(__name__)

_GROUPS = {"schedule": RoundSchedule, "simulations": ModelSimulations, "labels": Labelling}

#: argument -> its group, none for two of them; in the old order
_GROUP_OF = {
    "reference": "labels", "n_rounds": "schedule", "first_epoch": "schedule", "every_n_epochs": "schedule",
    "extra_rounds": "schedule", "n_systems": "simulations", "steps": "simulations", "n_labels": "labels",
    "max_steps": "simulations", "time_step": "simulations", "kinetic_energy": "simulations", "share": "",
    "max_force": "labels", "n_processes": "labels", "folder": "",
}  # fmt: skip


class VisitedStates(OnPolicyLabels):
    """Deprecated: `spk_dt.training.OnPolicyLabels`, whose arguments are in groups, is the new name.

    Args:
        args: values of arguments, in their old order.
        kwargs: arguments of `OnPolicyLabels` and of its groups, side by side; `folder` is ``visited`` if not given.

    Raises:
        TypeError: if there is no such argument.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(_GROUP_OF, args, strict=False)) | kwargs
        unknown = sorted(given.keys() - _GROUP_OF.keys())
        if unknown or len(args) > len(_GROUP_OF) or "reference" not in given:
            raise TypeError(f"VisitedStates takes reference, and any of {list(_GROUP_OF)}; unknown here: {unknown}")
        groups: dict[str, dict[str, Any]] = {name: {} for name in ("", *_GROUPS)}
        for name, value in given.items():
            groups[_GROUP_OF[name]][name] = value
        made = {name: cls(**groups[name]) for name, cls in _GROUPS.items()}
        super().__init__(**made, **({"folder": "visited"} | groups[""]))
        defaults = {one.name: one.default for cls in _GROUPS.values() for one in fields(cls)} | {"share": 0.25}
        renamed = (
            f"callbacks.visits.{name} -> callbacks.on_policy.{'.'.join(filter(None, (_GROUP_OF[name], name)))}"
            for name, value in given.items()
            if name not in defaults or defaults[name] != value
        )
        log.warning(
            "callbacks.visits, experiment=dt_visits and spk_dt.training.VisitedStates are deprecated and go in the next "
            "version; use callbacks.on_policy, experiment=dt_on_policy and spk_dt.training.OnPolicyLabels. What is set: %s",
            ", ".join(renamed),
        )

    @property
    def state_key(self) -> str:
        """That of the new name, under which a run can be continued."""
        return OnPolicyLabels.__qualname__
