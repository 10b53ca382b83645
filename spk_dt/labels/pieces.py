"""Dynamics with a reference method, made piece by piece: each piece is a file that is there as a whole, or not.

A piece begins with a new calculator and with what the file of the one before holds (``.traj``, which keeps all digits), so
that a run that was killed continues with the first missing piece and gives the numbers of one that was not.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.md import MolecularDynamics

from spk_dt.labels.provenance import differing
from spk_dt.labels.reference_check import check_reference
from spk_dt.labels.reference_process import ReferenceProcess
from spk_dt.trajectories.fixed_atoms import fixes_positions

__all__ = [
    "InProcess",
    "Progress",
    "check_method",
    "check_settings",
    "frame_of",
    "read_piece",
    "run_dynamics",
    "silent",
    "splits_of",
    "write_piece",
]

#: called with the piece that is being made, the steps done and the steps in all
Progress = Callable[[str, int, int], None]


class InProcess(Calculator):
    """The reference calculator in a process of its own.

    A new one is made for the first geometry, and goes on from one to the next.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  # as ASE declares it

    def __init__(self, process: ReferenceProcess) -> None:
        super().__init__()
        self._process, self._fresh = process, True

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = (), system_changes: Sequence[str] = all_changes
    ) -> None:
        """Energy and forces (eV, eV/Å), and what else the calculator gives along."""
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        bare = atoms.copy()  # with initial charges and magnetic moments, and the total charge in `info`
        bare.set_constraint()
        found = self._process.compute(bare, self._fresh)
        self._fresh = False
        self.results = {"energy": found.energy, "forces": found.forces, **found.others}


def frame_of(atoms: Atoms) -> Atoms:
    """A copy with the results of its calculator; of its constraints those that hold atoms fixed."""
    forces, energy = atoms.get_forces(apply_constraint=False), atoms.get_potential_energy()
    frame = atoms.copy()
    frame.set_constraint([one for one in frame.constraints if fixes_positions(one)])
    frame.calc = SinglePointCalculator(frame, **(atoms.calc.results | {"energy": float(energy), "forces": forces}))
    return frame


def run_dynamics(
    dynamics: MolecularDynamics, steps: int, done: Callable[[int], None], save_every: int = 1
) -> Iterator[Atoms]:
    """The first frame and that after each `save_every` steps; `done` is called with the steps that are done."""
    yield frame_of(dynamics.atoms)
    for step in range(1, steps + 1):
        dynamics.run(1)
        done(step)
        if step % save_every == 0:
            yield frame_of(dynamics.atoms)


def write_piece(file: Path, frames: Iterable[Atoms]) -> None:
    """Write a piece, which appears under its name when it is complete."""
    part = file.with_name(f".{file.stem}.part")
    ase.io.write(part, list(frames), format="traj")
    part.replace(file)


def read_piece(file: Path) -> list[Atoms]:
    """Frames of a piece."""
    return list(ase.io.iread(file, ":"))


def splits_of(names: list[str]) -> dict[str, list[str]] | None:
    """The last quarter for testing, 15 % before it for validation, at least one each; None for fewer than three."""
    if len(names) < 3:
        return None
    test = len(names) - max(1, round(0.25 * len(names)))
    val = test - max(1, round(0.15 * len(names)))
    return {"train": names[:val], "val": names[val:test], "test": names[test:]}


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse to mix pieces made with other settings; keep the settings for the next time.

    Raises:
        ValueError: if the folder holds pieces made with other settings.
    """
    file = folder / "recipe.json"
    if not file.exists():
        part = file.with_suffix(".part")
        part.write_text(json.dumps(settings, indent=2) + "\n")
        part.replace(file)
        return
    found = differing(json.loads(file.read_text()), settings)
    if found:
        before, now = (", ".join(f"{key}={values[i]}" for key, values in found.items()) for i in (0, 1))
        raise ValueError(
            f"'{folder}' holds pieces made with {before}, but now {now} is asked for. Ask for the same to continue, or "
            "choose another name for the database, or remove the folder."
        )


def check_method(folder: Path, pieces: Mapping[str, Sequence[Path]], reference: str, *how: Any) -> None:
    """Compute frames of the pieces again before more are made: a name may have come to stand for another method.

    Args:
        folder: folder with the pieces, for messages.
        pieces: per trajectory, the files of its pieces.
        reference: reference method.
        how: see `spk_dt.labels.reference_check.check_reference`, from `scratch` on.

    Raises:
        ValueError: if it is another method.
    """
    files = [file for each in pieces.values() for file in each]
    made = {name: [file for file in each if file.exists()] for name, each in pieces.items()}
    if not any(made.values()) or all(file.exists() for file in files):
        return
    frames = []
    for name, each in made.items():
        for file in dict.fromkeys((each[0], each[-1])) if each else ():
            with ase.io.Trajectory(file) as trajectory:
                for index in {0, len(trajectory) - 1}:
                    frames.append(trajectory[index])
                    frames[-1].info |= {"trajectory": name, "frame": index}
    way_out = "choose another name for the database"
    check_reference(frames, reference, str(folder), None, False, False, way_out, "reference", *how)


def silent(piece: str, done: int, total: int) -> None:
    """No progress shown."""
