"""One trajectory, from its frames to a verdict: measurements in order, until one of them refuses.

What is wrong further up makes everything below it look wrong too; so the first cause found is the one that is told.
"""

import ase.units
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from spk_dt import properties
from spk_dt.trajectories.diagnosis import rules_of_fixed, rules_of_frames, rules_of_motion, rules_of_units
from spk_dt.trajectories.diagnosis.finding import Diagnosis, Finding
from spk_dt.trajectories.diagnosis.geometry import cell_change, closest_pair
from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.diagnosis.residual import measure_residual
from spk_dt.trajectories.diagnosis.scales import fit_energy, fit_scales
from spk_dt.trajectories.diagnosis.sequence import find_events
from spk_dt.trajectories.diagnosis.stress import measure_stress, of_stress
from spk_dt.trajectories.diagnosis.survey import Survey, survey
from spk_dt.trajectories.frames import Frames

__all__ = ["SINGLE_FRAMES", "diagnose"]

#: how to train on frames that are no reference of a rollout
SINGLE_FRAMES = "Train on single frames: globals.max_rollout_length=1 data.val_window=1 (experiment=dt_on_policy too)."

#: of a number in any unit; single precision, in which models compute, ends not much above
_LARGEST = 1e30

#: findings of what moves atoms beside the forces, which rollouts would miss
_OF_ROLLOUTS = ("thermostat", "other_forces", "single_kicks", "constraints", "noise")


def diagnose(frames: Frames, trajectory: int, replay_kicks: bool = False) -> Diagnosis:
    """Check one trajectory.

    Args:
        frames: all frames of a database.
        trajectory: index of the trajectory.
        replay_kicks: whether rollouts replay what moves atoms beside the forces.
    """
    reader = PieceReader(frames, trajectory)
    record = reader.record
    numbers: dict[str, float | None] = {}
    findings = _findings(reader, replay_kicks, numbers)
    return Diagnosis(
        trajectory=record.name,
        formula=Atoms(reader.numbers).get_chemical_formula(),
        n_atoms=len(reader.numbers),
        n_frames=len(reader),
        timestep_fs=record.timestep_fs,
        inner_steps=record.inner_steps,
        velocities=record.velocities,
        findings=tuple(findings),
        **numbers,
    )


def _findings(reader: PieceReader, replay_kicks: bool, numbers: dict[str, float | None]) -> list[Finding]:
    """All findings; `numbers` is filled with what is measured on the way."""
    found = _not_finite(reader) or _at_rest(reader)
    if found:
        return found
    if len(reader) < 3:
        text = f"{len(reader)} frames are too few to see whether they follow each other; it takes three."
        return [
            Finding("too_few_frames", "warning", text, "Longer trajectories serve dynamic training."),
            *_cell(reader),
            *_overlap(reader),
        ]
    series = survey(reader)
    if not series.step_size.any():
        text = "no atom ever moves: all frames are the same."
        return [Finding("no_motion", "refused", text, "Write the positions of each frame.")]
    numbers["temperature_k"] = float(2.0 * series.kinetic.mean() / (series.degrees_of_freedom * ase.units.kB))
    found = rules_of_fixed.of_strays(reader, series)
    if found:
        return found
    if not series.followed.any():
        return [*_cell(reader), *_overlap(reader), _too_sparse(reader, series)]

    sequence = find_events(reader, series)
    found = rules_of_frames.of_sequence(reader, sequence) or rules_of_frames.of_velocities(reader, series, sequence)
    if found:
        return found
    strange = sequence.strange
    scales = fit_scales(reader, series, strange)
    stress = measure_stress(series, strange)
    # what the cell does to the energy is known with a stress, and noise without one
    explained = not reader.cell_changes or stress is not None
    energy = fit_energy(series, strange, np.nan_to_num(series.cell_work) * (1.0 if stress is None else stress.value))
    if energy is not None and explained:
        numbers["energy_slope"] = energy.value
    found = (
        rules_of_frames.of_pairing(reader, scales, energy)
        or rules_of_units.of_scales(reader, series, scales, energy, numbers["temperature_k"])
        or of_stress(stress)
        or _overlap(reader)
    )
    if found:
        return found
    if not reader.cell_changes:
        numbers["drift_mev_per_atom_per_ps"], numbers["fluctuation_mev_per_atom"] = rules_of_motion.conservation(
            reader, series
        )

    found = _cell(reader) + rules_of_fixed.of_undeclared(reader, series)
    found += rules_of_motion.of_constraints(reader, series, replay_kicks)
    atoms = np.flatnonzero(series.free & series.followed if reader.inner_steps > 1 else series.free)
    kicks = None
    if len(atoms):
        kicks = measure_residual(reader, series, strange, atoms)
        numbers["residual"], numbers["displaced"] = kicks.relative, kicks.worst
        numbers["displaced_floor"] = max(kicks.explained.values())
        numbers["residual_position_ang"], numbers["residual_velocity_ang_per_fs"] = kicks.position, kicks.velocity
        found += rules_of_motion.of_kicks(reader, scales, kicks, replay_kicks)
    if explained and all(
        one.key != "corrupted_frame" for one in found
    ):  # whose forces do not explain the energy either
        found += rules_of_motion.of_energy(reader, series, energy, None if reader.cell_changes else kicks)
    if reader.cell_changes:
        found = [finding for finding in found if finding.key not in _OF_ROLLOUTS]
    found += rules_of_motion.of_momentum(reader, series)
    if reader.inner_steps > 1 and series.coverage < 0.9:
        found.append(_too_sparse(reader, series))
    return found + rules_of_fixed.of_masked_forces(reader) + _wrapped(series)


def _not_finite(reader: PieceReader) -> list[Finding]:
    """Numbers that are NaN or infinite, or so large that they become so when computed with."""
    found = []
    for key in reader.frames.values:
        bad = []
        for first, last in reader.ranges(0, len(reader)):
            finite = (np.abs(reader.raw(key, first, last)) < _LARGEST).reshape(last - first, -1).all(axis=1)
            bad += (first + np.flatnonzero(~finite)).tolist()
        if bad:
            text = (
                f"{key.strip('_')} are not finite (NaN, infinite or beyond {_LARGEST:g}) in {len(bad)} of {len(reader)} "
                f"frames, first in frame {bad[0]}."
            )
            remedy = "Remove these frames, and write what is before and after them as two trajectories."
            found.append(
                Finding(
                    "not_finite",
                    "refused",
                    text,
                    remedy,
                    bad[:100],
                    {"property": key, "number": len(bad)},
                    {"leave_out": tuple(bad), "cut": tuple(bad)} if len(bad) < len(reader) else {},
                )
            )
    return found


def _at_rest(reader: PieceReader) -> list[Finding]:
    """Velocities that are all zero."""
    if any(reader.raw(properties.velocities, *ends).any() for ends in reader.ranges(0, len(reader))):
        return []
    text = "all velocities are zero. Dynamic training starts from velocities."
    remedy = (
        "For velocity Verlet they are v(t) = (x(t + dt) - x(t - dt)) / (2 dt) (spkdt convert --recover-velocities)."
    )
    return [Finding("zero_velocities", "refused", text, remedy, options={"recover_velocities": True})]


def _cell(reader: PieceReader) -> list[Finding]:
    """A cell that changes: frames serve one by one, but are no reference of a rollout, which keeps its cell."""
    if not reader.cell_changes:
        return []
    change, frame = cell_change(reader)
    text = (
        f"the cell changes, by up to {change:.2g} Å, first in frame {frame}: a rollout keeps the cell of its first frame, "
        "and is refused along this trajectory."
    )
    return [Finding("cell_changes", "warning", text, SINGLE_FRAMES, [frame], {"ang": change})]


def _overlap(reader: PieceReader) -> list[Finding]:
    """Atoms that are too close."""
    pair = closest_pair(reader)
    if pair is None:
        return []
    distance, radii, frame, i, j = pair
    names = " and ".join(f"{k} ({chemical_symbols[reader.numbers[k]]})" for k in (i, j))
    text = f"atoms {names} are {distance:.2g} Å apart in frame {frame}; their covalent radii add up to {radii:.2g} Å."
    remedy = "Look at the frame, at the unit of the positions and at the cell."
    return [Finding("overlap", "refused", text, remedy, [frame], {"ang": distance, "atoms": [i, j]})]


def _too_sparse(reader: PieceReader, series: Survey) -> Finding:
    """Atoms whose forces cannot be followed over steps of the simulation between frames."""
    fast = ~series.followed & (series.free if series.free.any() else ~series.frozen)
    symbols = ", ".join(chemical_symbols[z] for z in np.unique(reader.numbers[fast]))
    checked = "" if series.followed.any() else " Time step, units and thermostat are not checked."
    text = (
        f"forces on {int(fast.sum())} atoms ({symbols}) change too much within the {reader.step_fs:g} fs between frames for "
        f"these atoms to be checked.{checked}"
    )
    remedy = "Frames that are closer in time could be."
    values = {"atoms": int(fast.sum())}
    return Finding("too_sparse", "note" if series.followed.any() else "warning", text, remedy, values=values)


def _wrapped(series: Survey) -> list[Finding]:
    """Positions that are moved back into the cell."""
    if series.wrapped_steps == 0:
        return []
    text = (
        f"positions of {series.wrapped_atoms} atoms jump by lattice vectors, in {series.wrapped_steps} steps: they were "
        "moved back into the cell. Training does not mind."
    )
    remedy = "Where paths of atoms matter, spkdt convert unwraps them."
    return [Finding("wrapped", "note", text, remedy, values={"steps": series.wrapped_steps})]
