"""All trajectories of a database: a table, what was found below it, and the same for programs."""

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from spk_dt.trajectories.diagnosis.finding import SEVERITIES, Diagnosis, Finding
from spk_dt.trajectories.diagnosis.remedy import as_arguments

__all__ = ["as_dict", "commands", "named_findings", "overall", "print_report"]

#: trajectories that are named for each thing that is found
_NAMED = 3
_STYLES = {"ok": "green", "note": "dim", "warning": "yellow", "refused": "red"}
_COLUMNS: tuple[tuple[str, JustifyMethod], ...] = (
    ("trajectory", "left"),
    ("atoms", "right"),
    ("frames", "right"),
    ("step\nfs", "right"),
    ("velocities\nfrom", "left"),
    ("temp.\nK", "right"),
    ("off in 20 fs\n% of motion", "right"),
    ("E drift\nmeV/atom/ps", "right"),
    ("E RMS\nmeV/atom", "right"),
    ("energy/\nforces", "right"),
    ("verdict", "left"),
)


def overall(diagnoses: Sequence[Diagnosis]) -> str:
    """The verdict on a database: that on its worst trajectory."""
    order = ("ok", *SEVERITIES[1:])
    return order[max((order.index(diagnosis.verdict) for diagnosis in diagnoses), default=0)]


def named_findings(diagnoses: Sequence[Diagnosis], severity: str) -> Iterator[tuple[list[tuple[str, Finding]], int]]:
    """What was found, each kind once: the first few trajectories with their finding, and the number of the others."""
    found: dict[str, list[tuple[str, Finding]]] = {}
    for diagnosis in diagnoses:
        for finding in diagnosis.findings:
            if finding.severity == severity:
                found.setdefault(finding.key, []).append((diagnosis.trajectory, finding))
    for pairs in found.values():
        yield pairs[:_NAMED], len(pairs) - min(len(pairs), _NAMED)


def print_report(diagnoses: Sequence[Diagnosis], source: str, console: Console) -> None:
    """Print a row for each trajectory, then each finding with its remedy, worst first, then the verdict."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, side in _COLUMNS:
        table.add_column(name, justify=side)
    for diagnosis in diagnoses:
        table.add_row(*_row(diagnosis), Text(diagnosis.verdict, style=_STYLES[diagnosis.verdict]))
    console.print(table)
    one_line = not console.is_terminal
    for severity in reversed(SEVERITIES):
        for pairs, others in named_findings(diagnoses, severity):
            for trajectory, finding in pairs:
                head = Text(f"{severity}: ", style=_STYLES[severity])
                console.print(head + Text(f"{trajectory}: {finding}", style=""), soft_wrap=one_line)
            if others:
                console.print(Text(f"    and of this kind ({pairs[0][1].key}) in {others} more."))
    for line in commands(diagnoses, source):
        console.print(Text(line), soft_wrap=True)
    verdict = overall(diagnoses)
    frames = sum(diagnosis.n_frames for diagnosis in diagnoses)
    noun = "trajectory" if len(diagnoses) == 1 else "trajectories"
    console.print(
        Text(f"{source}: {len(diagnoses)} {noun}, {frames} frames: ") + Text(verdict, style=_STYLES[verdict]),
        soft_wrap=one_line,
    )


def commands(diagnoses: Sequence[Diagnosis], source: str) -> Iterator[str]:
    """How to do what the findings say: one command for all trajectories with the same remedy."""
    alike: dict[str, list[str]] = {}
    for diagnosis in diagnoses:
        if diagnosis.remedies:
            alike.setdefault(as_arguments(diagnosis.remedies[0]), []).append(diagnosis.trajectory)
    for arguments, names in alike.items():
        take = "" if len(names) == len(diagnoses) else f" --take {','.join(names)}"
        yield f"remedy: spkdt convert {source} NEW.db {arguments}{take}"


def as_dict(diagnoses: Sequence[Diagnosis], source: str) -> dict[str, Any]:
    """All numbers and findings, as JSON can hold them."""
    trajectories = [_plain(diagnosis.as_dict()) for diagnosis in diagnoses]
    return {"database": source, "verdict": overall(diagnoses), "trajectories": trajectories}


def _row(diagnosis: Diagnosis) -> list[str]:
    """Cells of the table but for the verdict."""
    step = f"{diagnosis.timestep_fs:g}"
    if diagnosis.inner_steps > 1:
        step += f" ({diagnosis.inner_steps}×{diagnosis.timestep_fs / diagnosis.inner_steps:g})"
    displaced, floor = diagnosis.displaced, diagnosis.displaced_floor or 0.0
    if displaced is not None and displaced <= floor:
        off = f"< {100 * floor:.1g}"
    else:
        off = _number(None if displaced is None else 100 * displaced, 2)
    return [
        diagnosis.trajectory,
        str(diagnosis.n_atoms),
        str(diagnosis.n_frames),
        step,
        "file" if diagnosis.velocities == "file" else "positions",
        _number(diagnosis.temperature_k, 3),
        off,
        _number(diagnosis.drift_mev_per_atom_per_ps, 2),
        _number(diagnosis.fluctuation_mev_per_atom, 2),
        _number(diagnosis.energy_slope, 3),
    ]


def _number(value: float | None, digits: int) -> str:
    """A number as it is shown: without digits that say nothing, a dash for what is not known."""
    if value is None or not isfinite(value):
        return "–"
    if value != 0.0 and abs(value) < 0.001:
        return "< 0.001" if value > 0.0 else "> -0.001"
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _plain(value: Any) -> Any:
    """Without numpy's types; null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not isfinite(value) else value
