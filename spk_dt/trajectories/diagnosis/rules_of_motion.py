"""From numbers to sentences: do forces alone move the atoms, and is the energy theirs?"""

from itertools import pairwise

import ase.units
import numpy as np
from ase.data import chemical_symbols

from spk_dt.trajectories.diagnosis.finding import SEVERITIES, Finding
from spk_dt.trajectories.diagnosis.masses import masses_finding, measured_masses
from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.diagnosis.residual import Residual
from spk_dt.trajectories.diagnosis.scales import EnergyFit, Scales
from spk_dt.trajectories.diagnosis.survey import Survey
from spk_dt.trajectories.energy_drift import drifts, slope_and_fluctuation
from spk_dt.trajectories.verlet_residual import verlet_residual

__all__ = ["NEGLIGIBLE", "TOLERATED", "conservation", "of_constraints", "of_energy", "of_kicks", "of_momentum"]

#: displacement within 20 fs, over the motion, below which what forces do not explain is not worth a word
NEGLIGIBLE = 1e-3
#: and above which a rollout would be compared with another dynamics
TOLERATED = 0.05
#: at which a thermostat begins to be one that scales velocities: part of the squared kicks along them
_SCALES = 0.8
#: and at which frames hardly follow from those before
_LOST = 0.25
#: kicks that add up by less over ten steps are noise
_GROWS = 3.0
#: and by more, steady
_STEADY = 30.0
#: fewer frames do not show one
_DRIFTS_FROM = 12
#: a centre of mass that is faster than this many times its thermal velocity drifts
_DRIFTS = 3.5

_REPLAY = "Set data.replay_kicks=true, so that rollouts replay it"
_EVERY_STEP = "Save every step of the simulation, for data.replay_kicks=true to replay it"


def of_constraints(reader: PieceReader, survey: Survey, replay: bool) -> list[Finding]:
    """Distances that are held fixed."""
    found = []
    severity, remedy = _replayed(reader, replay, "refused", "")
    if len(survey.rigid):
        kinds = ", ".join(
            sorted({"-".join(sorted(chemical_symbols[z] for z in reader.numbers[p])) for p in survey.rigid})
        )
        number = "1 distance" if len(survey.rigid) == 1 else f"{len(survey.rigid)} distances"
        text = f"{number} ({kinds}) held fixed: a model would let them vibrate."
        atoms = np.unique(survey.rigid).tolist()
        found.append(Finding("constraints", severity, text, remedy, values={"atoms": atoms}))
    return found


def of_kicks(reader: PieceReader, scales: Scales | None, kicks: Residual, replay: bool) -> list[Finding]:
    """What is left of the steps of atoms that are free, and its cause."""
    if kicks.worst < NEGLIGIBLE:
        return _rounded(kicks)
    severity, remedy = _replayed(reader, replay, "refused" if kicks.worst > TOLERATED else "warning")
    percent = 100.0 * kicks.worst
    share = f"{percent:.0f}" if percent >= 10.0 else f"{percent:.2g}"
    size = f"by {share} % of their motion within {kicks.window_fs:.0f} fs"
    values = {"displaced": kicks.worst, "residual": kicks.relative}

    found = _spacing(reader, scales, severity, size, values) or _masses(reader, scales, severity, size, values)
    if found:
        return found
    if kicks.along_velocity > _SCALES:
        rate = kicks.scaling_per_ps
        text = f"a thermostat scales the velocities, at {rate:.2g} /ps (RMS): it displaces atoms {size}."
        return [Finding("thermostat", severity, text, remedy, values={**values, "scaling_per_ps": rate})]
    found = _single_frames(reader, kicks, severity, remedy, size, values)
    if found:
        return found
    return _unordered(reader, scales, kicks, severity, remedy, size, values)


def _rounded(kicks: Residual) -> list[Finding]:
    """Numbers of few digits, which explain all that is left."""
    size = max(kicks.rounded.values(), default=0.0)
    if size < NEGLIGIBLE:
        return []
    severity = "warning" if size > TOLERATED else "note"
    text = (
        f"numbers are rounded to few digits, which displaces atoms by {100.0 * size:.2g} % of their motion within "
        f"{kicks.window_fs:.0f} fs; all that forces do not explain is within that."
    )
    return [Finding("noise", severity, text, "Write more digits.", values={"displaced": size})]


def _unordered(
    reader: PieceReader,
    scales: Scales | None,
    kicks: Residual,
    severity: str,
    remedy: str,
    size: str,
    values: dict[str, float],
) -> list[Finding]:
    """Kicks that are not along the velocities: noise, random, or steady."""
    if kicks.growth is None:
        text = (
            f"more than the forces changes the velocities: it displaces atoms {size}. {len(reader)} frames are too few to "
            "judge what."
        )
        return [Finding("other_forces", min(severity, "warning", key=SEVERITIES.index), text, remedy, values=values)]
    noise = kicks.growth < _GROWS or kicks.shift_explains_more
    if noise and reader.inner_steps > 1:
        return []  # errors of the quadrature do not add up either
    if noise:
        if kicks.worst > _LOST:
            text = (
                f"frames hardly follow from those before: what forces do not explain displaces atoms {size}. Steps of the "
                f"simulation between frames, {reader.step_fs:.3g} fs apart, were not saved, or the numbers carry noise."
            )
            remedy = (
                "Write inner_steps=N with the time between frames (spkdt convert --save-every N), N as in the input of the "
                "simulation; if every step is there, write more digits."
            )
            return [Finding("noise", severity, text, remedy, values=values)]
        spread = f"{kicks.position:.1g} Å and {kicks.velocity:.1g} Å/fs"
        text = (
            f"positions, velocities or forces carry noise, {spread} (RMS): too few digits. It displaces atoms {size}."
        )
        return [Finding("noise", severity, text, "Write more digits.", values=values)]
    if kicks.growth > _STEADY:
        text = (
            "something that is not in the forces pushes the atoms steadily (an external field, friction, a restraint, or "
            f"another integrator): it displaces them {size}."
        )
        return [Finding("other_forces", severity, text, remedy, values=values)]
    exact = scales is not None and scales.velocity.unexplained * kicks.thermal < 0.01 * kicks.of_step.mean()
    if exact and not reader.recovered_velocities:
        text = (
            f"forces differ by {kicks.force:.2g} eV/Å (RMS) from those that moved the atoms, whose positions and velocities "
            f"follow each other exactly: they are rounded or not converged, which displaces atoms {size}."
        )
        return [Finding("noise", severity, text, "Write more digits, or converge further.", values=values)]
    friction = kicks.friction_per_ps
    text = f"random forces, as of a Langevin thermostat of friction {friction:.2g} /ps, displace atoms {size}."
    return [Finding("thermostat", severity, text, remedy, values={**values, "friction_per_ps": friction})]


def _spacing(
    reader: PieceReader, scales: Scales | None, severity: str, size: str, values: dict[str, float]
) -> list[Finding]:
    """Steps of the simulation between frames that nobody told, or that velocities do not know."""
    if scales is None:
        return []
    if (
        reader.inner_steps > 1
        and scales.force.form == scales.velocity.form == "now"
        and scales.force.unexplained < 1e-6
    ):
        text = f"says inner_steps={reader.inner_steps}, but every step is there; the difference displaces atoms {size}."
        return [Finding("inner_steps", severity, text, "Write inner_steps=1.", (), values, {"save_every": 1})]
    if scales.force.form != "spaced":
        return []
    if reader.inner_steps == 1:
        part = 1.0 - 12.0 * scales.force.second / scales.force.value  # 1/n^2
        number = "2" if part > 0.17 else "3 or more"
        options = {"save_every": 2 if part > 0.17 else max(round(max(part, 1e-3) ** -0.5), 3)}
        text = (
            f"there are {number} steps of the simulation between frames, but inner_steps=1: a rollout would take one long "
            f"step instead, which displaces atoms {size}."
        )
        remedy = (
            "Write inner_steps=N with the time between frames (spkdt convert --save-every N), N as in the input of the "
            f"simulation; about {options['save_every']} fits."
        )
        return [Finding("inner_steps", severity, text, remedy, (), values, options)]
    if scales.velocity.form == "now" and scales.velocity.unexplained < 1e-9:
        text = (
            "velocities are plain central differences of frames with steps of the simulation between, which displaces "
            f"atoms {size}."
        )
        remedy = "Let spkdt convert recover them, which accounts for the forces, or save every step."
        return [Finding("sparse_velocities", severity, text, remedy, (), values, {"recover_velocities": True})]
    return []


def _masses(
    reader: PieceReader, scales: Scales | None, severity: str, size: str, values: dict[str, float]
) -> list[Finding]:
    """Other masses than those of the database, element by element."""
    if scales is None or not scales.by_group < 0.3 * scales.force.unexplained:
        return []
    others = tuple(
        float(reader.masses[atoms[0]]) / fit.value
        if fit.value > 0 and abs(fit.value - 1) > max(0.002, 5 * fit.error)
        else None
        for atoms, fit in zip(scales.groups, scales.force_of, strict=True)
    )
    if others == (None,) * len(others):
        return []
    meant = measured_masses(reader, scales, others)
    return [masses_finding(reader, scales, meant, False, severity, f", which displaces them {size}", values)]


def _single_frames(
    reader: PieceReader, kicks: Residual, severity: str, remedy: str, size: str, values: dict[str, float]
) -> list[Finding]:
    """A few steps that hold nearly all of the kicks: single frames are wrong, or a thermostat acts rarely."""
    of_step = kicks.of_step
    limit = max(100.0 * float(np.median(of_step)), 1e-6 * kicks.thermal)
    steps = np.flatnonzero(of_step > limit)
    if (
        not 0 < len(steps) <= min(max(2, 0.02 * len(of_step)), len(of_step) // 2 - 1)
        or of_step[steps].sum() < 0.9 * of_step.sum()
    ):
        return []
    frames, what = [], set()
    for one, next_one in pairwise(steps.tolist()):
        if next_one == one + 1:
            piece = reader.read(one, one + 3)
            ones = np.ones(len(reader.numbers))
            _, kick = verlet_residual(
                piece.positions,
                piece.velocities,
                piece.accelerations,
                ones,
                reader.step_fs,
                reader.cell,
                reader.pbc,
                reader.inner_steps,
            )
            frames.append(one + 1)
            what.add("forces" if np.vdot(kick[0] * reader.masses[:, None], kick[1]) > 0.0 else "velocities")
    if frames:
        names = " or ".join(sorted(what))
        text = (
            f"{names} in {'frame' if len(frames) == 1 else 'frames'} {_some(frames)} do not fit those before and after."
        )
        remedy = "Remove the frame, or compute it anew, and write what is before and after as two trajectories."
        options = {"leave_out": tuple(frames), "cut": tuple(frames)}
        return [Finding("corrupted_frame", "refused", text, remedy, frames, {"number": len(frames)}, options)]
    text = (
        f"velocities change by more than forces say after {_some(steps.tolist())}, and only there: it displaces atoms "
        f"{size}."
    )
    if severity != "note":
        remedy = f"{remedy} Or write what is before and after as two trajectories."
    return [Finding("single_kicks", severity, text, remedy, steps.tolist(), {**values, "number": len(steps)})]


def of_energy(reader: PieceReader, survey: Survey, energy: EnergyFit | None, kicks: Residual | None) -> list[Finding]:
    """Energies that are not those of the forces, and their drift.

    Args:
        reader: the trajectory.
        survey: its series.
        energy: fit of their change; None if there is none.
        kicks: what moves the atoms beside the forces; the work they do is no drift. None if not known.
    """
    if energy is None:
        if len(survey.energy) > 3 and np.ptp(survey.energy) == 0.0 and survey.force > 0.0:
            text = f"the energy is the same in all frames, {survey.energy[0]:.6g} eV, although forces act."
            return [Finding("energy_unrelated", "refused", text, "Write the energy of each frame.")]
        return []
    found = []
    values = {"unexplained": energy.unexplained, "slope": energy.value}
    if energy.unexplained > 0.1 and survey.coverage > 0.9:
        part = 100 * (1.0 - energy.unexplained)
        text = f"energies do not belong to the forces: these explain {part:.0f} % of how the energy changes along the path."
        remedy = (
            "Take both from the same calculation, the energy of which the forces are the gradient (the free energy)."
        )
        severity = "refused" if energy.unexplained > 0.5 else "warning"
        return [Finding("energy_unrelated", severity, text, remedy, values=values)]
    off = survey.energy_change - energy.value * (-np.diff(survey.kinetic) if energy.kinetic else survey.work[1])
    limit = max(30.0 * 1.4826 * float(np.median(np.abs(off))), 0.5 * float(np.std(survey.energy)), 1e-6)
    steps = np.flatnonzero(np.abs(off) > limit)
    if len(steps):
        pairs = [one + 1 for one, other in pairwise(steps.tolist()) if other == one + 1 and off[one] * off[other] < 0.0]
        frames = pairs or steps.tolist()
        size = float(np.abs(off[steps]).max())
        if pairs:
            text = f"energies in {_some(frames)} are off by up to {size:.2g} eV."
        else:
            text = f"the energy jumps by up to {size:.2g} eV after {_some(frames)}, which forces do not explain."
        remedy = "Compute these frames anew; look whether the electrons changed state, or settings were changed."
        found.append(Finding("energy_jump", "refused", text, remedy, frames, {"ev": size}))
    drift, fluctuation = conservation(reader, survey)
    if kicks is None or kicks.worst >= NEGLIGIBLE or found or len(reader) < _DRIFTS_FROM:
        return found
    drift -= kicks.work_mev_per_atom_per_ps
    duration = reader.step_fs * (len(reader) - 1)
    if drifts(drift, fluctuation, duration, survey.kinetic, len(reader.numbers)):
        text = (
            f"the total energy drifts by {drift:.3g} meV per atom and ps, although nothing but forces moves the atoms."
        )
        remedy = "Converge the forces further, or use a shorter time step."
        found.append(Finding("energy_drift", "warning", text, remedy, values={"drift": drift}))
    return found


def conservation(reader: PieceReader, survey: Survey) -> tuple[float, float]:
    """Slope of the total energy, meV per atom that moves and ps, and RMS about that line, meV per atom."""
    return slope_and_fluctuation(survey.energy + survey.kinetic, reader.step_fs, survey.degrees_of_freedom)


def of_momentum(reader: PieceReader, survey: Survey) -> list[Finding]:
    """A centre of mass that moves, or is pushed."""
    found: list[Finding] = []
    if not survey.mobile.all() or len(reader.numbers) == 1:
        return found
    speed = float(np.linalg.norm(survey.momentum.mean(axis=0)) / reader.masses.sum())  # Å/fs
    own = survey.kinetic.mean() - 0.5 * reader.masses.sum() * (speed / ase.units.fs) ** 2
    thermal = 2.0 * own / (len(reader.numbers) * reader.masses.sum())  # 3 k_B T / M
    if speed > _DRIFTS * ase.units.fs * np.sqrt(max(thermal, 0.0)):
        text = f"all atoms drift together, at {1e3 * speed:.2g} Å/ps, faster than heat explains."
        found.append(
            Finding("centre_of_mass", "warning", text, "It adds nothing to learn from.", values={"speed": speed})
        )
    push = survey.net_force / (survey.force * np.sqrt(len(reader.numbers))) if survey.force > 0.0 else 0.0
    if push > 0.05:
        text = f"forces do not add up to zero: the sum is {survey.net_force:.2g} eV/Å (RMS)."
        remedy = "An external field or a substrate does this, or forces that are not converged."
        found.append(Finding("net_force", "note", text, remedy, values={"ev_per_ang": survey.net_force}))
    return found


def _replayed(
    reader: PieceReader, replay: bool, severity: str, otherwise: str = ", or use trajectories of constant energy"
) -> tuple[str, str]:
    """Severity and remedy of what kicks can replay."""
    if reader.inner_steps > 1:
        return severity, f"{_EVERY_STEP}{otherwise}."
    if replay:
        return "note", "data.replay_kicks=true replays it."
    return severity, f"{_REPLAY}{otherwise if severity == 'refused' else ''}."


def _some(frames: list[int]) -> str:
    shown = ", ".join(str(frame) for frame in frames[:5])
    return shown if len(frames) <= 5 else f"{shown} and {len(frames) - 5} more"
