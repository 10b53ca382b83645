"""Numbers of an evaluation as tables: one that compares the models, and one for each group of metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spk_dt.evaluation.results import Errors, Results

__all__ = ["Table", "format_number", "metric_tables", "verdict"]


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
    ("error of the distribution of distances, h(r)", "structure", "mae_of_h_of_r", False, False),
    (
        "largest drift of the energy (meV per atom and ps)",
        "conservation",
        "largest_drift_mev_per_atom_per_ps",
        False,
        False,
    ),
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
    """The quantities that decide, with the best value marked; no mark where a model has none.

    Means leave out what exploded or could not be labelled, which flatters the model that it happened to. So where it did, to
    any of the models, none of them is marked.
    """
    rows: list[tuple[str, list[str], list[bool]]] = []
    metrics = [results.metrics.get(model, {}) for model in results.models]
    exploded = [one.get("exploded") for one in metrics]
    whole = not any(exploded)
    labelled = whole and not any(one.get("true_error", {}).get("labels", {}).get("n_failed") for one in metrics)
    where = "at the start frames" if results.thermostat else "along the reference"
    for name, errors, comparable in (
        ("true force error of visited geometries", results.true_errors, labelled),
        (f"force error {where}", results.along_reference, whole or results.thermostat),
    ):
        means = {m: {e: _mean(c) for e, c in errors[m].items()} for m in results.models if m in errors}
        for element in results.elements if errors else ():
            values = [means.get(m, {}).get(element) for m in results.models]
            rows.append(_ranked(f"{name}, {element} (eV/Å)", values, comparable=comparable))
    off = [one.get("true_error", {}).get("energy", {}).get("mae_mev_per_atom") for one in metrics]
    if any(value is not None for value in off):
        rows.append(_ranked("true error of the energy since the start (meV per atom)", off, comparable=labelled))
    if any(one is not None for one in exploded):
        counts = [len(one) if isinstance(one, list) else one for one in exploded]
        rows.append(_ranked(f"simulations that exploded, of {len(results.starts)}", counts))
    stress = [one.get("stress", {}) for one in metrics]
    if any(stress):  # at frames of the data, whatever comes of simulations
        rows.append(_ranked("error of the stress at frames of the data (GPa)", [one.get("mae_gpa") for one in stress]))
        sizes = [abs(one["mean_pressure_error_gpa"]) if one else None for one in stress]
        rows.append(_ranked("error of the mean pressure there (GPa)", sizes))
    for name, group, key, larger_is_better, of_all in _VERDICT:
        found = [one.get(group, {}).get(key) for one in metrics]
        if any(value is not None for value in found):
            rows.append(_ranked(name, found, larger_is_better, whole or of_all))
    return Table("Models compared", list(results.models), rows)


def metric_tables(metrics: Mapping[str, Any], models: list[str]) -> list[Table]:
    """All of ``metrics.json``, a table for each of its groups; a list counts its entries."""
    flat = {model: _flat(metrics.get(model, {})) for model in models}
    groups: dict[str, dict[tuple[str, ...], None]] = {}
    for values in flat.values():
        for path in values:
            if path[0] == "by_start":
                continue  # every start on its own is for programs
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


def _mean(errors: Errors) -> float:
    """Mean over time, without what exploded."""
    finite = errors.mae[np.isfinite(errors.mae)]
    return float(finite.mean()) if len(finite) else float("nan")


def _ranked(
    name: str, values: list[float | None], larger_is_better: bool = False, comparable: bool = True
) -> tuple[str, list[str], list[bool]]:
    """A row whose best value is marked, if models differ in it and may be compared."""
    finite = [value for value in values if value is not None and np.isfinite(value)]
    shown = [format_number(value) for value in values]
    if not comparable or len(set(shown)) < 2 or len(finite) < 2:
        return name, shown, [False] * len(values)
    best = max(finite) if larger_is_better else min(finite)
    return name, shown, [value == best for value in values]


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Leaves of nested dictionaries by their path; in place of a list its length, if its entries are no numbers."""
    if isinstance(value, Mapping):
        return {key: leaf for name, one in value.items() for key, leaf in _flat(one, (*path, str(name))).items()}
    if isinstance(value, list):
        numbers = len(value) <= 6 and value and all(isinstance(one, int | float | None) for one in value)
        value = ", ".join(map(format_number, value)) if numbers else len(value)
    return {path: value}
