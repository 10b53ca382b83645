"""What is to be known of a model beside its weights, as plain data."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ase.data import atomic_numbers

__all__ = ["Facts"]


@dataclass(frozen=True)
class Facts:
    """What users of a model shall know.

    Args:
        name: of the model.
        energy_unit: unit of its energies, as `ase.units` names it.
        distance_unit: its unit of length.
        cutoff: in `distance_unit`.
        outputs: what it predicts.
        elements: symbols of the elements that it was trained on; empty if it is not known.
        time_step_fs: of the data that it was trained on; empty if it is not known.
        loss: what it was trained on, in words, if it is known.
        reference: method of the training data, as their database names it, if it is known.
        authors: who made it.
        description: in words.
        training_data: name and SHA-256 of the database, if it is known.
        made_from: name and SHA-256 of the ``best_model``.
        made_by: versions of the programs.
        certificates: what `spkdt certify` has found.
    """

    name: str
    energy_unit: str
    distance_unit: str
    cutoff: float
    outputs: list[str]
    elements: list[str] = field(default_factory=list)
    time_step_fs: list[float] = field(default_factory=list)
    loss: list[str] = field(default_factory=list)
    reference: dict[str, Any] = field(default_factory=dict)
    authors: list[str] = field(default_factory=list)
    description: str = ""
    training_data: dict[str, str] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
    certificates: list[dict[str, Any]] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Plain data, of what is known."""
        return {key: value for key, value in asdict(self).items() if value not in ("", [], {})}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Facts":
        """From plain data.

        Raises:
            ValueError: if something lacks, or is not what it should be.
        """
        known = {one.name: one.type for one in fields(cls)}
        given = {key: value for key, value in content.items() if key in known}
        if lacking := [
            key for key in ("name", "energy_unit", "distance_unit", "cutoff", "outputs") if key not in given
        ]:
            raise ValueError(f"it does not say its {lacking[0]}")
        kinds = {"str": str, "float": float, "list": list, "dict": dict}
        for key, value in given.items():
            kind = kinds[str(getattr(known[key], "__name__", known[key])).partition("[")[0]]
            if not isinstance(value, (float, int) if kind is float else kind) or isinstance(value, bool):
                raise ValueError(f"its {key} is {str(value)[:80]!r}")
        for key in ("outputs", "elements", "loss", "authors"):
            if not all(isinstance(one, str) for one in given.get(key, ())):
                raise ValueError(f"its {key} are {str(given[key])[:80]}")
        numbers = [given["cutoff"], *given.get("time_step_fs", ())]
        if not all(isinstance(n, float | int) and math.isfinite(n) and n > 0 for n in numbers):
            raise ValueError(f"cutoff and time_step_fs are {numbers}, which are no positive numbers")
        if unknown := [one for one in given.get("elements", ()) if one not in atomic_numbers]:
            raise ValueError(f"'{unknown[0][:20]}' is no element")
        return cls(**given)
