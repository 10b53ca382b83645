"""Numbers of an evaluation as tables: one that compares the models, and one for each group of metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spk_dt.evaluation.results import Errors, Results

__all__ = ["Table", "format_number", "metric_tables", "ranked", "repulsion_table", "verdict"]


#: further rows of the verdict: name, where the number is in the metrics, whether larger is better, and whether simulations
#: that exploded count in it
_VERDICT = (
    (
        "part of simulations that keep the bonds that the reference keeps",
        "stability",
        "part_that_keeps_the_bonds_that_the_reference_keeps",
        True,
        True,
    ),
    (
        "pairs of elements that repel when pushed together",
        "repulsion",
        "pairs_that_stay_repulsive",
        True,
        True,
    ),
    ("error of the distribution of distances, h(r)", "structure", "mae_of_h_of_r", False, False),
)


@dataclass(frozen=True)
class Table:
    """A table with a row for each quantity and a column for each model.

    Args:
        title: what is in it.
        models: heads of the columns.
        rows: name of each quantity, its values as they are shown, and whether each is the best of its row.
    """

    title: str
    models: list[str]
    rows: list[tuple[str, list[str], list[bool]]]


def verdict(results: Results) -> Table:
    """The quantities that decide, the most important first, with the best value marked; no mark where a model has none.

    First which simulations fail, then true errors at late times, last how fast trajectories part from those of the
    reference, which says nothing of a potential and is never marked.

    Means leave out what exploded or could not be labelled, which flatters the model that it happened to. So where it did, to
    any of the models, none of them is marked.
    """
    rows: list[tuple[str, list[str], list[bool]]] = []
    metrics = [results.metrics.get(model, {}) for model in results.models]
    exploded = [one.get("exploded") for one in metrics]
    true = [one.get("true_error", {}) for one in metrics]
    whole = not any(exploded)
    labelled = whole and not any(one.get("labels", {}).get("n_failed") for one in true)
    failed = [one.get("failures", {}).get("n_failed") for one in true]
    numbers = [len(results.of_model(model)) for model in results.models]
    same = len(set(numbers)) == 1
    of = f", of {numbers[0]}" if same else ""
    if not same:
        rows.append(ranked("simulations", numbers, comparable=False))
    if any(value is not None for value in failed):
        rows.append(ranked(f"simulations that failed{of}", failed, comparable=same))
    if any(one is not None for one in exploded):
        counts = [len(one) if isinstance(one, list) else one for one in exploded]
        rows.append(ranked(f"simulations that exploded{of}", counts, comparable=same))
    if results.true_errors:
        late = 0.5 * max(np.nanmax(one.time_fs) for of in results.true_errors.values() for one in of.values())
        name = f"true force error of visited geometries from {late:.4g} fs on"
        rows += _force_errors(name, results, results.true_errors, late, labelled)
    for name, key in (("true error of the energy since the start", "mae"), ("the same, largest", "largest")):
        off = [one.get("energy", {}).get(f"{key}_mev_per_atom") for one in true]
        if any(value is not None for value in off):
            rows.append(ranked(f"{name} (meV per atom)", off, comparable=labelled))
    drifts = [one.get("conservation", {}) for one in metrics]
    if any(one.get("largest_drift_mev_per_atom_per_ps") is not None for one in drifts):
        rows.append(_drift(drifts, whole))
    stress = [one.get("stress", {}) for one in metrics]
    if any(stress):  # at frames of the data, whatever comes of simulations
        rows.append(ranked("error of the stress at frames of the data (GPa)", [one.get("mae_gpa") for one in stress]))
        sizes = [abs(one["mean_pressure_error_gpa"]) if one else None for one in stress]
        rows.append(ranked("error of the mean pressure there (GPa)", sizes))
    for name, group, key, larger_is_better, of_all in _VERDICT:
        found = [one.get(group, {}).get(key) for one in metrics]
        if any(value is not None for value in found):
            rows.append(ranked(name, found, larger_is_better, whole or of_all))
    rows += _speed(metrics)
    if results.of_trajectories:
        kept = [one.get("stability", {}).get("part_stable") for one in metrics]
        rows.append(ranked("part of simulations that keep the bonds of their first frame", kept, True))
    elif results.thermostat:
        rows += _force_errors("force error at the start frames", results, results.along_reference, 0.0, True)
    else:
        name = "divergence: force error along the reference"
        rows += _force_errors(name, results, results.along_reference, 0.0, False)
    return Table("Models compared", list(results.models), rows)


def _force_errors(
    name: str, results: Results, errors: Mapping[str, Mapping[str, Errors]], from_fs: float, comparable: bool
) -> list[tuple[str, list[str], list[bool]]]:
    """A row for each element: mean over the times from `from_fs` on."""
    means = {m: {e: _mean(c, from_fs) for e, c in errors[m].items()} for m in results.models if m in errors}
    return [
        ranked(
            f"{name}, {element} (eV/Å)",
            [means.get(m, {}).get(element) for m in results.models],
            comparable=comparable,
        )
        for element in results.elements
    ]


def repulsion_table(results: Results) -> Table | None:
    """Down to which distance two atoms repel each other, for each pair of elements; None where it is not known."""
    curves = [results.motion.get("pairs", {}).get(model, {}) for model in results.models]
    rows = []
    for pair, one in next((of for of in curves if of), {}).items():
        shown = []
        for of in curves:
            down_to, end = of[pair]["down_to"], of[pair]["r"][-1]
            shown.append(
                "not there" if down_to is None else f"{down_to:.2f}" + " (not pushed further)" * (down_to == end)
            )
        rows.append((f"{pair}, in the data from {one['shortest']:.2f} Å on", shown, [False] * len(shown)))
    title = "Force between two atoms that are pushed together in a frame of the data: repulsive down to (Å)"
    return Table(title, list(results.models), rows) if rows else None


def _drift(conservation: Sequence[Mapping[str, Any]], comparable: bool) -> tuple[str, list[str], list[bool]]:
    """Largest drift with its standard error; the best is marked if models differ by more than twice the errors."""
    drifts = [one.get("largest_drift_mev_per_atom_per_ps") for one in conservation]
    errors = [one.get("standard_error_of_largest_drift_mev_per_atom_per_ps") for one in conservation]
    known = [value for value in drifts if value is not None]
    noise = 2.0 * float(np.linalg.norm([error or 0.0 for error in errors]))
    shown = [
        format_number(value) + ("" if error is None else f" ± {error:.1g}")
        for value, error in zip(drifts, errors, strict=True)
    ]
    differ = comparable and max(known) - min(known) > noise
    return ranked("largest drift of the energy (meV per atom and ps)", drifts, comparable=differ, shown=shown)


def _speed(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], list[bool]]]:
    """What was simulated in a day, with what it was measured on."""
    speeds = [one.get("speed", {}) for one in metrics]
    known = next((one for one in speeds if one.get("ns_per_day") is not None), None)
    if known is None:
        return []
    threads = f", {known['threads']} thread{'s' if known['threads'] > 1 else ''}" if known["threads"] else ""
    compiled = ", compiled" if known["compiled"] else ""
    name = (
        f"ns per day of all simulations ({known['systems_side_by_side']} side by side; {known['device']}{threads}, "
        f"{known['precision_bits']} bits{compiled}, {known['timestep_fs']:g} fs)"
    )
    return [(name, [format_number(one.get("ns_per_day_of_all")) for one in speeds], [False] * len(speeds))]


def metric_tables(metrics: Mapping[str, Any], models: list[str]) -> list[Table]:
    """All of ``metrics.json``, a table for each of its groups; a list counts its entries."""
    flat = {model: _flat(metrics.get(model, {})) for model in models}
    groups: dict[str, dict[tuple[str, ...], None]] = {}
    for values in flat.values():
        for path in values:
            if path[0] in ("by_start", "not_known"):
                continue  # every start on its own is for programs, and what is not known is said elsewhere
            groups.setdefault(path[0], {})[path] = None
    tables = []
    for group, paths in groups.items():
        rows = []
        for path in paths:
            shown = [format_number(flat[model].get(path)) for model in models]
            rows.append((", ".join(path[1:]).replace("_", " ") or "value", shown, [False] * len(models)))
        tables.append(Table(group.replace("_", " "), models, rows))
    return tables


def format_number(value: Any) -> str:
    """A value as it is shown: four digits, a dash for what is missing or not finite."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def ranked(
    name: str,
    values: Sequence[float | None],
    larger_is_better: bool = False,
    comparable: bool = True,
    shown: Sequence[str] | None = None,
) -> tuple[str, list[str], list[bool]]:
    """A row whose best value is marked, if models differ in it and may be compared.

    Args:
        name: of the quantity.
        values: of the models, None where there is none.
        larger_is_better: whether the largest value is the best.
        comparable: whether there is a best one.
        shown: how the values are shown, if not as numbers alone.
    """
    finite = [value for value in values if value is not None and np.isfinite(value)]
    shown = [format_number(value) for value in values] if shown is None else list(shown)
    if not comparable or len(set(shown)) < 2 or len(finite) < 2:
        return name, shown, [False] * len(values)
    best = max(finite) if larger_is_better else min(finite)
    return name, shown, [value == best for value in values]


def _mean(errors: Errors, from_fs: float) -> float:
    """Mean over the times from one on, without what exploded."""
    finite = errors.mae[np.isfinite(errors.mae) & (errors.time_fs >= from_fs)]
    return float(finite.mean()) if len(finite) else float("nan")


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Leaves of nested dictionaries by their path; in place of a list its length, if its entries are no numbers."""
    if isinstance(value, Mapping):
        return {key: leaf for name, one in value.items() for key, leaf in _flat(one, (*path, str(name))).items()}
    if isinstance(value, list):
        numbers = len(value) <= 6 and value and all(isinstance(one, int | float | None) for one in value)
        value = ", ".join(map(format_number, value)) if numbers else len(value)
    return {path: value}
