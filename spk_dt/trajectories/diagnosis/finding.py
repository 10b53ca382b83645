"""What a check says of a trajectory: findings, and the verdict that follows from them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from spk_dt.trajectories.diagnosis.remedy import Options, merged

__all__ = ["SEVERITIES", "Diagnosis", "Finding"]

#: what a finding means for training, from harmless to refused
SEVERITIES = ("note", "warning", "refused")


@dataclass(frozen=True)
class Finding:
    """One thing that is to be said of a trajectory.

    Args:
        key: what it is, for programs.
        severity: one of `SEVERITIES`.
        text: a sentence or two, with the value.
        remedy: what to do about it.
        frames: frames of the trajectory that it is about; empty if it is about all.
        values: what was measured.
        options: what to do about it, as keywords of `convert`, together with those of the other findings; empty where no
            conversion helps.
        alternatives: what to do in place of that and of the options of all other findings, where another cause fits as well.
    """

    key: str
    severity: str
    text: str
    remedy: str = ""
    frames: Sequence[int] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=dict)
    alternatives: Sequence[Options] = ()

    def __str__(self) -> str:
        return f"{self.text} {self.remedy}".strip()


@dataclass(frozen=True)
class Diagnosis:
    """All about one trajectory; a number is None where it could not be measured.

    Args:
        trajectory: its name.
        formula: chemical formula.
        n_atoms: number of atoms.
        n_frames: number of frames.
        timestep_fs: time between frames.
        inner_steps: steps of the simulation between frames.
        velocities: where they come from.
        temperature_k: mean temperature, of 3 degrees of freedom for each atom that moves.
        residual: RMS of what velocity Verlet leaves of the change of velocities in a step, over what the forces make.
        residual_position_ang: RMS of what it leaves of the change of positions.
        residual_velocity_ang_per_fs: and of velocities.
        displaced: what these residuals displace atoms by within 20 fs, over their motion; that of the worst element.
        displaced_floor: the smallest such displacement that could be seen.
        drift_mev_per_atom_per_ps: of the total energy.
        fluctuation_mev_per_atom: RMS of the total energy about that line.
        energy_slope: change of the energy over the work of the forces.
        findings: in order of their cause.
    """

    trajectory: str
    formula: str
    n_atoms: int
    n_frames: int
    timestep_fs: float
    inner_steps: int
    velocities: str
    temperature_k: float | None = None
    residual: float | None = None
    residual_position_ang: float | None = None
    residual_velocity_ang_per_fs: float | None = None
    displaced: float | None = None
    displaced_floor: float | None = None
    drift_mev_per_atom_per_ps: float | None = None
    fluctuation_mev_per_atom: float | None = None
    energy_slope: float | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> str:
        """One of "ok", "warning", "refused"."""
        worst = max((SEVERITIES.index(finding.severity) for finding in self.findings), default=0)
        return "ok" if worst == 0 else SEVERITIES[worst]

    @property
    def remedies(self) -> list[dict[str, Any]]:
        """Keywords of `convert` that make the trajectory right: one set for each explanation, the likeliest first.

        Empty where nothing has to be done, or where a conversion does not mend all that was found.
        """
        serious = [finding for finding in self.findings if finding.severity != "note"]
        if not serious or not all(finding.options for finding in serious):
            return []
        return [merged(one.options for one in serious), *(dict(other) for one in serious for other in one.alternatives)]

    def as_dict(self) -> dict[str, Any]:
        """All by name, for JSON."""
        return {**asdict(self), "verdict": self.verdict, "remedies": self.remedies}
