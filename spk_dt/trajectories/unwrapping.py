"""Frames of one trajectory: the same atoms, with positions that do not jump by lattice vectors."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols

from spk_dt.trajectories.moves import moves, same_cell
from spk_dt.trajectories.readers.incomplete import BrokenDownError
from spk_dt.trajectories.stored_properties import carry_over

__all__ = ["LARGEST_MOVE", "checked_frames"]

#: largest move from frame to frame, as a part of the shortest height of the cell; beyond, it may be a move of another image
LARGEST_MOVE = 0.4

#: numbers beyond are taken for damage
_LARGEST = 1e15


def checked_frames(
    frames: Iterable[Atoms], source: str, lenient: bool = False, too_far: Callable[[str], None] | None = None
) -> Iterator[Atoms]:
    """Check frames, and move each atom by lattice vectors to where it is nearest to its place in the frame before.

    Where the cell changes, that place goes with it.

    Args:
        frames: frames in order of time, with energy, forces and perhaps momenta in the units of ASE.
        source: where they are from, for error messages.
        lenient: whether energy and forces may be missing, as long as they do in all frames.
        too_far: called with the message where an atom moves too far to tell which of its images it is; it then goes to the
            nearest. Without, this is refused.

    Yields:
        new frames: atoms, cell, masses, momenta, constraints, and a calculator with energy and forces; where the frames have
        a free energy, it is the energy, since the forces are its gradient.

    Raises:
        ValueError: if a frame lacks energy or forces, or has a cell without volume; if atoms or periodicity change, or
            momenta are in some frames only; if an atom moves too far to tell which of its images it is. Names the frame.
        BrokenDownError: if a frame has numbers that are not finite.
    """
    needed: tuple[str, ...] = () if lenient else ("energy", "forces")
    first: Atoms | None = None
    before = Atoms()
    for index, raw in enumerate(frames):
        where = f"{source}, frame {index}"
        frame = _frame(raw, where, needed, index)
        if first is None:
            needed = tuple(frame.calc.results.keys() & {"energy", "forces"})
            first = frame.copy()  # whoever gets the frame may change it
        else:
            _check_same(first, frame, where)
            if same_cell(frame.cell.array, first.cell.array, first.pbc):
                frame.set_cell(first.cell)
            if first.pbc.any():
                _unwrap(frame, before, where, too_far)
        before = frame.copy()
        yield frame


def _frame(raw: Atoms, where: str, needed: tuple[str, ...], index: int) -> Atoms:
    """A new frame with what the database keeps."""
    results = raw.calc.results if raw.calc is not None else {}
    energy = results.get("free_energy", results.get("energy"))
    given = {"energy": energy, "forces": results.get("forces")}
    missing = [name for name in given if given[name] is None and name in needed]
    if missing:
        raise ValueError(
            f"{where}: it has no {' and no '.join(missing)}. Each frame needs "
            f"{' and '.join(name for name in given if name in needed)}."
        )
    known = {name: np.asarray(value, dtype=np.float64) for name, value in given.items() if value is not None}
    if "forces" in known and known["forces"].shape != (len(raw), 3):
        raise ValueError(f"{where}: forces are of shape {known['forces'].shape} for {len(raw)} atoms.")
    if not np.all((raw.numbers > 0) & (raw.numbers < len(chemical_symbols))):
        raise ValueError(
            f"{where}: the atomic number {raw.numbers.max()} or {raw.numbers.min()} is not that of an element."
        )
    frame = Atoms(raw.numbers, positions=raw.positions, cell=raw.cell, pbc=raw.pbc)
    for name in ("masses", "momenta"):
        if raw.has(name):
            frame.set_array(name, raw.arrays[name], float)
    for name, values in (
        *known.items(),
        ("positions", frame.positions),
        ("cell", frame.cell.array),
        ("velocities", raw.arrays.get("momenta", 0.0)),
        ("masses", raw.arrays.get("masses", 0.0)),
    ):
        if not np.all(np.abs(values) < _LARGEST):
            raise BrokenDownError(
                f"{where}: a number of its {name} is not finite, or absurdly large. The simulation broke down there, or the "
                "file is damaged.",
                index,
            )
    if not np.all(frame.get_masses() > 0.0):
        raise ValueError(f"{where}: the mass of an atom is not positive.")
    periodic = frame.cell.array[frame.pbc]
    if np.linalg.matrix_rank(periodic) < len(periodic):
        raise ValueError(f"{where}: it is periodic, but its cell {frame.cell.array.tolist()} has no volume.")
    frame.set_constraint(raw.constraints)
    frame.calc = SinglePointCalculator(frame)
    if "energy" in known:
        frame.calc.results["energy"] = float(known["energy"])
    if "forces" in known:
        frame.calc.results["forces"] = known["forces"]
    if raw.calc is not None:
        carry_over(raw, frame)
    return frame


def _check_same(first: Atoms, frame: Atoms, where: str) -> None:
    """Refuse frames that are not of the same system."""
    if not np.array_equal(frame.numbers, first.numbers):
        raise ValueError(
            f"{where}: it has other atoms, or another order of atoms, than the first frame. Convert each trajectory "
            "as a file of its own."
        )
    if not np.array_equal(frame.get_masses(), first.get_masses()):
        raise ValueError(f"{where}: its masses differ from those of the first frame.")
    if not np.array_equal(frame.pbc, first.pbc):
        raise ValueError(f"{where}: it is periodic along other vectors than the first frame.")
    if frame.has("momenta") != first.has("momenta"):
        has, first_has = ("has", "has none") if frame.has("momenta") else ("has no", "has them")
        raise ValueError(
            f"{where}: it {has} velocities, the first frame {first_has}. With --recover-velocities they are taken "
            "from the positions throughout."
        )


def _unwrap(frame: Atoms, before: Atoms, where: str, too_far: Callable[[str], None] | None) -> None:
    """Move atoms by lattice vectors to where they are nearest to their place in the frame before."""
    cells = np.array([before.cell.array, frame.cell.array])
    periodic = cells[:, frame.pbc]
    inverse = np.linalg.pinv(periodic)  # [2, 3, n_periodic]; columns are normal to the planes of the cell
    images = np.round(frame.positions @ inverse[1] - before.positions @ inverse[0])
    if images.any():
        frame.positions = frame.positions - images @ periodic[1]
    moved = moves(np.array([before.positions, frame.positions]), cells, frame.pbc)[0]
    lengths = np.linalg.norm(moved @ inverse[1] @ periodic[1], axis=1)
    if lengths.max() > LARGEST_MOVE / np.linalg.norm(inverse[1], axis=0).max():
        atom = int(lengths.argmax())
        message = (
            f"{where}: atom {atom} ({frame.symbols[atom]}) is {lengths[atom]:.2f} Å from its place in the frame before, "
            f"more than {LARGEST_MOVE:g} of the cell, so it is not known which way it went. Frames are missing there, "
            "or were saved too rarely."
        )
        if too_far is None:
            raise ValueError(message)
        too_far(message)
