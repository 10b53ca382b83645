"""What `spkdt evaluate` does with trajectories that were made elsewhere: which options go with them, and what is printed."""

import json
from collections.abc import Mapping
from inspect import get_annotations
from pathlib import Path
from typing import Any

import typer

from spk_dt.cli.reading import OfFiles

__all__ = ["refuse_without_effect", "tell"]

#: options that only simulations of models have, and only trajectories of other programs
_OF_MODELS = (
    *("steps", "starts_per_trajectory", "device", "energy_unit", "position_unit", "every"),
    *("friction", "seed", "precision", "compile"),
)
_OF_TRAJECTORIES = tuple(get_annotations(OfFiles))


def refuse_without_effect(ctx: typer.Context, of_trajectories: bool) -> None:
    """Refuse options that are given, but would have no effect."""
    for name in _OF_MODELS if of_trajectories else _OF_TRAJECTORIES:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            here, there = (
                ("trajectories", "models") if of_trajectories else ("models", "trajectories of other programs")
            )
            raise ValueError(f"--{name.replace('_', '-')} is for {there}, and has no effect on {here}; leave it away.")


def tell(metrics: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """What was found of trajectories, in lines; `out` is the folder of the evaluation."""
    from spk_dt.evaluation.tables import format_number

    read = json.loads((out / "settings.json").read_text(encoding="utf-8"))["trajectories"]
    for name, one in metrics.items():
        for note in read[name]["notes"]:
            typer.echo(f"{name}: note: {note}")
        stability, conservation = one["stability"], one["conservation"]
        typer.echo(
            f"{name}: trajectories: {len(one['by_start'])}; part that keeps the bonds of its first frame: "
            f"{format_number(stability['part_stable'])}, for {format_number(stability['mean_stable_fs'])} fs in the mean; "
            f"exploded: {len(one['exploded'])}"
        )
        known = {
            "error of h(r)": one["structure"]["mae_of_h_of_r"],
            "between halves of the data": one["structure"]["mae_of_h_of_r_between_halves_of_the_data"],
            "temperature (K)": conservation["mean_temperature_k"],
            "largest drift of the energy (meV per atom and ps)": conservation.get("largest_drift_mev_per_atom_per_ps"),
        }
        shown = [f"{what} {format_number(value)}" for what, value in known.items() if value is not None]
        if shown:
            typer.echo(f"{name}: {', '.join(shown)}")
        for what, why in one["not_known"].items():
            typer.echo(f"{name}: not known: {what}: {why}")
