"""From numbers to sentences: do the frames follow each other, and do their values belong to them?"""

from collections.abc import Sequence as Several

import numpy as np
from ase.data import chemical_symbols

from spk_dt.trajectories.diagnosis.finding import Finding
from spk_dt.trajectories.diagnosis.known_units import known_unit
from spk_dt.trajectories.diagnosis.masses import apart
from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.diagnosis.remedy import Options
from spk_dt.trajectories.diagnosis.scales import EnergyFit, Scales
from spk_dt.trajectories.diagnosis.sequence import MOSTLY_STRANGE, Event, Sequence
from spk_dt.trajectories.diagnosis.survey import Survey

__all__ = ["of_pairing", "of_sequence", "of_velocities"]

_TWO = "write what is before and after as two trajectories"
_POSITIONS = "Take velocities from the positions (spkdt convert --recover-velocities)"
_RECOVER = {"recover_velocities": True}


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
    options: Options = {"cut": tuple(frames)}
    if kind == "duplicated_frames":
        text = f"{_are(len(frames))} the same as the one before: {_list([f + 1 for f in frames])}."
        remedy = "Remove the repeated frames."
        options = {"leave_out": tuple(f + 1 for f in frames)}
    elif kind == "dropped_frames":
        missing = sum(event.number for event in events)
        text = (
            f"{missing} {'frames are' if missing > 1 else 'frame is'} missing, after {_frames(frames)}: there atoms move by "
            f"{first.number + 1} steps at once."
        )
        remedy = f"Find the missing frames, or {_TWO}."
    elif kind == "out_of_order":
        text = f"time runs backwards after {_frames(frames)}."
        remedy = "Write the frames anew in the order of time; their order cannot be told from them."
        options = {}
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
        options = {} if any(event.lattice for event in events) else options
    else:
        what = first.what or "positions"
        who = f" of {_atom(reader, first.atom)} by {first.distance:.2g} Å" if first.atom is not None else ""
        text = f"{what}{who} in {_frames(frames)} do not fit those of the frames before and after."
        remedy = f"Remove {'these frames' if len(frames) > 1 else 'the frame'}, and {_TWO}."
        options = {"leave_out": tuple(frames), "cut": tuple(frames)}
    return Finding(kind, "refused", text, remedy, frames, {"number": len(frames)}, options)


def of_velocities(reader: PieceReader, survey: Survey, sequence: Sequence) -> list[Finding]:
    """Velocities that have nothing to do with the positions."""
    if sequence.from_velocities or reader.recovered_velocities or sequence.predicted < 0.5:
        return []
    text = (
        f"velocities do not belong to the positions: they explain {100 * max(survey.explained, 0.0):.0f} % of how these "
        "change, although the frames follow each other."
    )
    return [
        Finding(
            "velocities_unrelated", "refused", text, f"{_POSITIONS}.", (), {"explained": survey.explained}, _RECOVER
        )
    ]


def of_pairing(reader: PieceReader, scales: Scales | None, energy: EnergyFit | None) -> list[Finding]:
    """Momenta in place of velocities, and values that belong to another frame."""
    return [] if scales is None else _momenta(reader, scales) or _shifts(scales, energy)


def _momenta(reader: PieceReader, scales: Scales) -> list[Finding]:
    """Momenta in place of velocities: a factor for each element that goes as one over its mass."""
    masses = np.array([float(reader.masses[atoms[0]]) for atoms in scales.groups])
    slopes = np.array([fit.value for fit in scales.velocity_of])
    products = slopes * masses
    if reader.recovered_velocities or apart(scales) or np.any(slopes <= 0.0):
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
    values = {
        chemical_symbols[reader.numbers[atoms[0]]]: fit.value
        for atoms, fit in zip(scales.groups, scales.velocity_of, strict=True)
    }
    factors = ", ".join(f"{symbol} {1.0 / slope:.3g}" for symbol, slope in values.items())
    text = f"velocities are too large by a factor that goes as the mass ({factors}): they are momenta."
    return [Finding("momenta", "refused", text, f"{_POSITIONS}, or divide by the masses.", (), values, _RECOVER)]


def _shifts(scales: Scales, energy: EnergyFit | None) -> list[Finding]:
    """Velocities, forces, energies that belong to another time than the positions."""
    found = []
    if scales.velocity.form.startswith("shifted"):
        part = scales.velocity.second / scales.force.value
        when = "before" if part > 0.0 else "after"
        values = {"early_by_steps": part}
        if abs(abs(part) - 0.5) < 0.15:
            text = f"velocities are those half a step {when} the positions, as of a leapfrog integrator."
            found.append(Finding("half_step_velocities", "refused", text, f"{_POSITIONS}.", (), values, _RECOVER))
        else:
            text = f"velocities are those {abs(part):.2g} steps {when} the positions."
            remedy = f"{_POSITIONS}, or pair them with the right frames."
            found.append(Finding("velocity_shift", "refused", text, remedy, (), values, _RECOVER))
    shift = {"early": -1, "late": 1}.get(scales.force.form, energy.force_shift if energy else 0)
    if shift:
        neighbour = "after" if shift > 0 else "before"
        text = (
            f"the forces of each frame are found at the frame {neighbour} it: they lead from frame to frame from there."
        )
        remedy = "Pair positions and forces of the same step; energies may be shifted as well."
        options = {
            "shift": {"forces": shift} | ({"energy": energy.energy_shift} if energy and energy.energy_shift else {})
        }
        found.append(Finding("force_shift", "refused", text, remedy, (), {"frames": shift}, options))
    elif energy is not None and energy.energy_shift:
        neighbour = "after" if energy.energy_shift > 0 else "before"
        text = (
            f"the energy of each frame is found at the frame {neighbour} it: from there it changes as the forces say."
        )
        remedy = "Pair positions and energies of the same step."
        values, options = {"frames": energy.energy_shift}, {"shift": {"energy": energy.energy_shift}}
        found.append(Finding("energy_shift", "refused", text, remedy, (), values, options))
    return found


def _are(number: int) -> str:
    return "1 frame is" if number == 1 else f"{number} frames are"


def _list(frames: Several[int]) -> str:
    shown = ", ".join(str(frame) for frame in frames[:5])
    return shown if len(frames) <= 5 else f"{shown} and {len(frames) - 5} more"


def _frames(frames: Several[int]) -> str:
    return f"{'frame' if len(frames) == 1 else 'frames'} {_list(frames)}"


def _atom(reader: PieceReader, atom: int | None) -> str:
    return f"atom {atom} ({chemical_symbols[reader.numbers[atom]]})"
