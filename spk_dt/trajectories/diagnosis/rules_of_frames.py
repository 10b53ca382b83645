"""From numbers to sentences: do the frames follow each other, with the time step and in the units that are said?"""

from collections.abc import Sequence as Several
from math import inf

import numpy as np
from ase.data import chemical_symbols

from spk_dt.trajectories.diagnosis.causes import Cause, Measured, explain, known_unit
from spk_dt.trajectories.diagnosis.finding import Finding
from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.diagnosis.scales import EnergyFit, Fit, Scales
from spk_dt.trajectories.diagnosis.sequence import MOSTLY_STRANGE, Event, Sequence
from spk_dt.trajectories.diagnosis.survey import Survey

__all__ = ["of_scales", "of_sequence", "of_velocities", "tolerance"]

_TWO = "write what is before and after as two trajectories"
_POSITIONS = "Take velocities from the positions (spkdt convert --recover-velocities)"


def of_sequence(reader: PieceReader, sequence: Sequence) -> list[Finding]:
    """Frames that are missing, twice there, in the wrong place, or wrong."""
    part = sequence.strange_part
    if part > MOSTLY_STRANGE:
        text = (
            f"{100 * part:.0f} % of the steps do not lead from one frame to the next: the frames are not in order of time, "
            "not of one trajectory, or so far apart in time that they cannot be followed."
        )
        remedy = "Sort the frames, and save every step of the simulation, or every few."
        return [Finding("not_consecutive", "refused", text, remedy, values={"strange_part": part})]
    kinds: dict[str, list[Event]] = {}
    for event in sequence.events:
        kinds.setdefault(event.kind, []).append(event)
    return [_of_events(reader, kind, events) for kind, events in kinds.items()]


def _of_events(reader: PieceReader, kind: str, events: list[Event]) -> Finding:
    """One finding for all events of a kind."""
    frames = [event.frame for event in events]
    first = events[0]
    if kind == "duplicated_frames":
        text = f"{_are(len(frames))} the same as the one before: {_list([f + 1 for f in frames])}."
        remedy = "Remove the repeated frames."
    elif kind == "dropped_frames":
        missing = sum(event.number for event in events)
        text = (
            f"{missing} {'frames are' if missing > 1 else 'frame is'} missing, after {_frames(frames)}: there atoms move by "
            f"{first.number + 1} steps at once."
        )
        remedy = f"Find the missing frames, or {_TWO}."
    elif kind == "out_of_order":
        text = f"time runs backwards after {_frames(frames)}."
        remedy = "Sort the frames by time."
    elif kind == "glued_runs":
        text = (
            f"the step after {_frames(frames)} has nothing to do with the velocities: another run begins there, or many "
            "frames are missing."
        )
        remedy = f"Cut there: {_TWO}."
    elif kind == "restarted":
        text = f"after {_frames(frames)} positions go on, but velocities are new: the run was restarted with others."
        remedy = f"Cut there: {_TWO}."
    elif kind == "jump":
        vector = (
            "a lattice vector, but the cell is not said to be periodic" if first.lattice else f"{first.distance:.2g} Å"
        )
        text = f"{_atom(reader, first.atom)} jumps by {vector}, after {_frames(frames)}."
        remedy = "Set the periodic boundary conditions." if first.lattice else f"Look at the frames, and {_TWO}."
    else:
        what = first.what or "positions"
        who = f" of {_atom(reader, first.atom)} by {first.distance:.2g} Å" if first.atom is not None else ""
        text = f"{what}{who} in {_frames(frames)} do not fit those of the frames before and after."
        remedy = f"Remove {'these frames' if len(frames) > 1 else 'the frame'}, and {_TWO}."
    return Finding(kind, "refused", text, remedy, frames, {"number": len(frames)})


def of_velocities(reader: PieceReader, survey: Survey, sequence: Sequence) -> list[Finding]:
    """Velocities that have nothing to do with the positions."""
    if sequence.from_velocities or reader.recovered_velocities or sequence.predicted < 0.5:
        return []
    text = (
        f"velocities do not belong to the positions: they explain {100 * max(survey.explained, 0.0):.0f} % of how these "
        "change, although the frames follow each other."
    )
    return [Finding("velocities_unrelated", "refused", text, f"{_POSITIONS}.", values={"explained": survey.explained})]


def tolerance(reader: PieceReader, scales: Scales) -> dict[str, float]:
    """How far slopes may be from one: errors, what noise and thermostats do to them, and the model of the step."""
    spaced = reader.inner_steps > 1 or scales.force.form == "spaced"
    force, velocity = _relative_error(scales.force), _relative_error(scales.velocity)
    return {
        "force": max(0.03 if spaced else 0.02, 5.0 * force if force < inf else 0.1),
        "velocity": max(
            0.03 if spaced else 0.005, 5.0 * velocity if velocity < inf else 0.05, 2.0 * scales.velocity.unexplained
        ),
    }


def _relative_error(fit: Fit | EnergyFit) -> float:
    return fit.error / abs(fit.value) if fit.value and fit.error < inf else inf


def of_scales(reader: PieceReader, survey: Survey, scales: Scales | None, energy: EnergyFit | None) -> list[Finding]:
    """Time step, units, signs, and values that belong to another frame."""
    if scales is None:
        return []
    found = _momenta(reader, scales) or _shifts(reader, scales, energy)
    if found:
        return found
    allowed = tolerance(reader, scales)
    measured = {}
    force, velocity = scales.force, scales.velocity
    known = force.error < 0.1 * abs(force.value) or (force.error == inf and np.isfinite(force.value))
    if survey.free.any() and known:
        measured["force"] = Measured(_same_mass(scales, force), allowed["force"])
    if not reader.recovered_velocities and np.isfinite(velocity.value):
        measured["velocity"] = Measured(velocity.value, allowed["velocity"])
    if energy is not None and energy.unexplained < 0.5 and (known or not energy.kinetic):
        value = energy.value
        if energy.kinetic:
            value *= force.value / velocity.value**2
        measured["energy"] = Measured(value, max(0.05, 5.0 * _relative_error(energy), energy.unexplained**0.5))
    explanations = explain(measured, reader.recovered_velocities, len(reader.numbers))
    values = {name: one.value for name, one in measured.items()}
    alternatives = [" and ".join(_short(reader, cause) for cause in one) for one in explanations[1:]]
    if any(cause.key == "energy_and_force_unit" and cause.unit is None for cause in explanations[0]):
        alternatives.append("all masses were wrong by the inverse of this factor")
    findings = [_of_cause(reader, cause, scales, values) for cause in explanations[0]]
    if findings and alternatives:
        last = findings[-1]
        text = f"{last.text[:-1]}; the same would show if {', or if '.join(alternatives)}."
        findings[-1] = Finding(last.key, last.severity, text, last.remedy, last.frames, last.values)
    return findings


def _same_mass(scales: Scales, force: Fit) -> float:
    """Alpha, of the element nearest to one where masses differ."""
    if scales.by_element < 0.3 * force.unexplained:
        return min((fit.value for fit in scales.force_of.values()), key=lambda value: abs(value - 1.0))
    return force.value


def _momenta(reader: PieceReader, scales: Scales) -> list[Finding]:
    """Momenta in place of velocities: a factor for each element that goes as one over its mass."""
    masses = {z: float(reader.masses[reader.numbers == z][0]) for z in scales.velocity_of}
    products = np.array([fit.value * masses[z] for z, fit in scales.velocity_of.items()])
    slopes = np.array([fit.value for fit in scales.velocity_of.values()])
    if reader.recovered_velocities or np.any(slopes <= 0.0):
        return []
    if len(slopes) > 1:
        momenta = np.ptp(products) < 0.05 * products.mean() and np.ptp(slopes) > 0.05 * slopes.mean()
    else:
        momenta = (
            abs(slopes[0] - 1.0) > 0.02
            and known_unit("velocity_unit", slopes[0]) is None
            and (abs(products[0] - 1.0) < 0.01 or known_unit("velocity_unit", products[0]) is not None)
        )
    if not momenta:
        return []
    factors = ", ".join(f"{chemical_symbols[z]} {1.0 / fit.value:.3g}" for z, fit in scales.velocity_of.items())
    text = f"velocities are too large by a factor that goes as the mass ({factors}): they are momenta."
    values = {chemical_symbols[z]: fit.value for z, fit in scales.velocity_of.items()}
    return [Finding("momenta", "refused", text, f"Divide by the masses, or: {_POSITIONS.lower()}.", values=values)]


def _shifts(reader: PieceReader, scales: Scales, energy: EnergyFit | None) -> list[Finding]:
    """Velocities, forces, energies that belong to another time than the positions."""
    found = []
    if scales.velocity.form.startswith("shifted"):
        part = scales.velocity.second / scales.force.value
        when = "before" if part > 0.0 else "after"
        values = {"early_by_steps": part}
        if abs(abs(part) - 0.5) < 0.15:
            text = f"velocities are those half a step {when} the positions, as of a leapfrog integrator."
            found.append(Finding("half_step_velocities", "refused", text, f"{_POSITIONS}.", values=values))
        else:
            text = f"velocities are those {abs(part):.2g} steps {when} the positions."
            remedy = f"Pair them with the right frames, or: {_POSITIONS.lower()}."
            found.append(Finding("velocity_shift", "refused", text, remedy, values=values))
    shift = {"early": -1, "late": 1}.get(scales.force.form, energy.force_shift if energy else 0)
    if shift:
        neighbour = "after" if shift > 0 else "before"
        text = (
            f"the forces of each frame are found at the frame {neighbour} it: they lead from frame to frame from there."
        )
        remedy = "Pair positions and forces of the same step; energies may be shifted as well."
        found.append(Finding("force_shift", "refused", text, remedy, values={"frames": shift}))
    elif energy is not None and energy.energy_shift:
        neighbour = "after" if energy.energy_shift > 0 else "before"
        text = (
            f"the energy of each frame is found at the frame {neighbour} it: from there it changes as the forces say."
        )
        remedy = "Pair positions and energies of the same step."
        found.append(Finding("energy_shift", "refused", text, remedy, values={"frames": energy.energy_shift}))
    return found


def _of_cause(reader: PieceReader, cause: Cause, scales: Scales, values: dict[str, float]) -> Finding:
    """The finding of one cause."""
    key, factor, unit = cause.key, cause.factor, cause.unit
    values = {"factor": factor, **values}
    if key == "time_step":
        return _of_time_step(reader, factor, scales, values)
    known = f": they seem to be in {unit}" if unit else ""
    size = f"{factor:.3g} times too small" if factor > 1.0 else f"{1.0 / factor:.3g} times too large"
    if key == "velocity_sign":
        text = "velocities point backwards: the frames are in reverse order, or the sign of the velocities is wrong."
        return Finding("reversed", "refused", text, "Turn the order of the frames round, or the sign.", values=values)
    if key == "force_sign":
        text = "forces point the wrong way: they are gradients of the energy."
        return Finding(key, "refused", text, "Change their sign.", values=values)
    what, name = {
        "velocity_unit": ("velocities", "Å/fs"),
        "force_unit": ("forces", "eV/Å"),
        "energy_unit": ("energies", "eV"),
        "energy_and_force_unit": ("energies and forces", "eV, eV/Å"),
        "length_unit": ("positions", "Å"),
    }[key]
    text = f"{what} are in another unit than {name}, in which they are {size}{known}."
    remedy = f"Multiply by {factor:.6g}, or say the unit when converting."
    return Finding(key, "refused", text, remedy, values={**values, "unit": unit})


def _of_time_step(reader: PieceReader, factor: float, scales: Scales, values: dict[str, float]) -> Finding:
    """A wrong time step, or frames that were saved every few steps."""
    said, true = reader.step_fs, reader.step_fs * factor
    every = round(factor)
    text = f"says {said:g} fs between frames, but they are {true:.3g} fs apart"
    thinned = every >= 2 and abs(factor - every) < 0.03 * every and reader.inner_steps == 1
    if thinned and scales.force.form == "spaced":
        text += f": one in {every} steps was saved, and frames are missing between."
        remedy = f"Write timestep_fs={every * said:g}, inner_steps={every} (spkdt convert --save-every {every})."
        return Finding("thinned", "refused", text, remedy, values={**values, "every": every})
    if thinned and scales.force.unexplained > 1e-6:
        text += f": the time step is wrong, or one in {every} steps was saved and frames are missing between."
        remedy = (
            f"Write timestep_fs={every * said:g}, in the second case with inner_steps={every} (--save-every {every})."
        )
    else:
        text += "."
        remedy = f"Write the trajectory with timestep_fs={true:.4g}."
    return Finding("time_step", "refused", text, remedy, values={**values, "timestep_fs": true})


def _short(reader: PieceReader, cause: Cause) -> str:
    """A cause in a few words, after "if"."""
    if cause.key == "time_step":
        return f"the frames were {reader.step_fs * cause.factor:.3g} fs apart"
    if cause.key.endswith("_sign"):
        return f"{'forces' if cause.key.startswith('force') else 'velocities'} had the wrong sign"
    what = cause.key.removesuffix("_unit").replace("_", " ")
    return f"the unit of {what} were {cause.unit or f'another, by a factor {cause.factor:.3g}'}"


def _are(number: int) -> str:
    return "1 frame is" if number == 1 else f"{number} frames are"


def _list(frames: Several[int]) -> str:
    shown = ", ".join(str(frame) for frame in frames[:5])
    return shown if len(frames) <= 5 else f"{shown} and {len(frames) - 5} more"


def _frames(frames: Several[int]) -> str:
    return f"{'frame' if len(frames) == 1 else 'frames'} {_list(frames)}"


def _atom(reader: PieceReader, atom: int | None) -> str:
    return f"atom {atom} ({chemical_symbols[reader.numbers[atom]]})"
