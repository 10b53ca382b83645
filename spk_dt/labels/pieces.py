"""Dynamics with a reference method, made piece by piece: each piece is a file that is there as a whole, or not.

A piece begins with a new calculator and with what the file of the one before holds (``.traj``, which keeps all digits), so
that a run that was killed continues with the first missing piece and gives the numbers of one that was not.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import ase.io
import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.md import MolecularDynamics

from spk_dt.folders.whole_file import whole_file
from spk_dt.labels.reference_process import NoLabelError, ReferenceProcess
from spk_dt.labels.relabel import bare_structure
from spk_dt.trajectories.fixed_atoms import fixes_positions

__all__ = ["InProcess", "frame_of", "read_piece", "run_dynamics", "thermal_velocities", "write_piece"]

log = logging.getLogger(__name__)


class InProcess(Calculator):
    """The reference calculator in a process of its own.

    A new one is made for the first geometry, and goes on from one to the next.

    Args:
        process: where it computes.
        others: whether to keep stress, dipole, charges and magnetic moments, if the calculator gives them along.
        known: a frame with results that are not to be computed again.
        told: results that users have been told about; it grows.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  # as ASE declares it

    def __init__(
        self,
        process: ReferenceProcess,
        others: bool = False,
        known: Atoms | None = None,
        told: set[str] | None = None,
    ) -> None:
        super().__init__()
        self._process, self._others, self._fresh = process, others, True
        self._told = set() if told is None else told
        if known is not None:
            self.atoms, self.results = known.copy(), dict(known.calc.results)

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = (), system_changes: Sequence[str] = all_changes
    ) -> None:
        """Energy and forces (eV, eV/Å), and what else the calculator gives along.

        Raises:
            NoLabelError: if the reference method gives none.
        """
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        if not np.isfinite(atoms.positions).all():
            raise NoLabelError("positions are not finite: the atoms have flown apart. Take a shorter time step.")
        found = self._process.compute(bare_structure(atoms, str(atoms.symbols)), self._fresh)
        self._fresh = False
        self.results = {"energy": found.energy, "forces": found.forces}
        if self._others:
            self.results |= found.others
            for name, why in found.unusable.items():
                if name not in self._told:
                    self._told.add(name)
                    log.warning("%s is left out: %s", name, " ".join(why.split())[:200])


def frame_of(atoms: Atoms, step: int | None = None) -> Atoms:
    """A copy with the results of its calculator; of its constraints those that hold atoms fixed.

    Args:
        atoms: with a calculator.
        step: of the dynamics, kept in ``info``; None keeps none.
    """
    forces, energy = atoms.get_forces(apply_constraint=False), atoms.get_potential_energy()
    frame = atoms.copy()
    frame.set_constraint([one for one in frame.constraints if fixes_positions(one)])
    frame.calc = SinglePointCalculator(frame, **(atoms.calc.results | {"energy": float(energy), "forces": forces}))
    if step is not None:
        frame.info["step"] = step
    return frame


def run_dynamics(
    dynamics: MolecularDynamics, steps: range, done: Callable[[int], None], wanted: Callable[[int], bool]
) -> Iterator[Atoms]:
    """Frames with their step: the wanted ones.

    Args:
        dynamics: with atoms at the first step of `steps`.
        steps: steps to make, the one to begin with included.
        done: called after each of them.
        wanted: whether the frame of a step is to be kept.

    Raises:
        NoLabelError: if the reference method fails at a step, which is named.
    """
    for step in steps:
        try:
            if step > steps[0]:
                dynamics.run(1)
                done(step)
            if wanted(step):
                yield frame_of(dynamics.atoms, step)
        except NoLabelError as error:
            raise NoLabelError(f"step {step}: {error}") from error


def write_piece(file: Path, frames: Iterable[Atoms]) -> None:
    """Write a piece, which appears under its name when it is complete."""
    with whole_file(file) as part:
        ase.io.write(part, list(frames), format="traj")


def read_piece(file: Path) -> list[Atoms]:
    """Frames of a piece.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        return list(ase.io.iread(file, ":", format="traj"))
    except Exception as error:  # whatever a damaged file leads to
        raise ValueError(
            f"'{file}' is damaged ({type(error).__name__}: {error}). Remove this file, and it is made again."
        ) from error


def thermal_velocities(atoms: Atoms, temperature_k: float, rng: np.random.Generator) -> np.ndarray:
    """[n_atoms, 3] velocities drawn from the Maxwell-Boltzmann distribution, in the unit of ASE."""
    spread = np.sqrt(ase.units.kB * temperature_k / atoms.get_masses())
    return spread[:, None] * rng.standard_normal((len(atoms), 3))
