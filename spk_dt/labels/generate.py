"""Reference trajectories of H2 on Pd6 anchored in a graphene vacancy, like those that come with the package.

The surface (4x4 graphene with one vacancy, a Pd6 octahedron standing on it) is relaxed and heated; snapshots of it are
starts, each of which gets a molecule of its own that flies towards the cluster at constant energy.

    relaxed   FIRE
    start_NN  Langevin dynamics of the surface, each continues the one before
    traj_NN   start_NN with H2, velocity Verlet

Each of these pieces is a file (``.traj``, which keeps all digits) in the folder ``<name>.generate`` beside the database,
and draws its random numbers from a generator of its own. So a run that was interrupted continues with the first missing
piece and ends with the trajectories of one that was not.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import ase.io
import ase.units
import numpy as np
from ase import Atoms
from ase.build import graphene
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from spk_dt.folders.hold import hold
from spk_dt.labels.pieces import (
    InProcess,
    Progress,
    check_method,
    check_settings,
    frame_of,
    read_piece,
    run_dynamics,
    silent,
    splits_of,
    write_piece,
)
from spk_dt.labels.reference_process import ReferenceProcess
from spk_dt.trajectories.database import TrajectoryWriter

__all__ = ["Recipe", "generate", "place_molecule", "surface"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How the trajectories are made; the defaults follow the protocol of those that come with the package.

    Args:
        lattice_ang: lattice constant of graphene, Å.
        height_ang: height of the cell, Å.
        relax_force_ev_per_ang: largest force on an atom of the relaxed surface, eV/Å.
        relax_steps: steps after which the relaxation stops in any case.
        temperature_k: temperature of the surface and of the vibration and rotation of the molecule, K.
        friction_per_fs: friction of the Langevin dynamics, 1/fs.
        timestep_fs: time step of all dynamics, and time between two frames, fs.
        equilibration_fs: time from the relaxed surface to the first start, fs.
        start_interval_fs: time from one start to the next, fs.
        steps: steps of a trajectory; it has one more frame.
        molecule_height_ang: height of the centre of the molecule above the topmost Pd, Å.
        molecule_offset_ang: largest distance, along x and along y, of the molecule from the centre of Pd6, Å.
        molecule_bond_ang: bond length of the molecule, Å.
        molecule_energy_ev: kinetic energy of the centre of the molecule, which moves downwards, eV.
    """

    lattice_ang: float = 2.46
    height_ang: float = 20.0
    relax_force_ev_per_ang: float = 0.05
    relax_steps: int = 300
    temperature_k: float = 300.0
    friction_per_fs: float = 0.01
    timestep_fs: float = 0.5
    equilibration_fs: float = 200.0
    start_interval_fs: float = 50.0
    steps: int = 400
    molecule_height_ang: float = 3.5
    molecule_offset_ang: float = 1.8
    molecule_bond_ang: float = 0.77
    molecule_energy_ev: float = 0.125

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing would move."""
        for name in ("timestep_fs", "steps", "equilibration_fs", "start_interval_fs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be larger than zero.")


def generate(
    path: str | Path,
    recipe: Recipe | None = None,
    n_trajectories: int = 19,
    seed: int = 0,
    reference: str = "tblite:GFN1-xTB",
    progress: Progress | None = None,
    scratch: str | Path | None = None,
    time_limit: float | None = None,
) -> Path:
    """Make trajectories and write them as a database; continue if an earlier run was interrupted.

    Trajectory i depends on the recipe, the seed and the reference only, so an interrupted run may be continued with
    more trajectories, or fewer. From three trajectories on the database has a split: the last quarter is for testing, 15 %
    before it for validation. Which reference method it was, by which versions and settings, is in the metadata of the
    database (``reference``).

    Args:
        path: database to create, ending in ``.db``.
        recipe: system and protocol; None for that of the embedded data.
        n_trajectories: number of trajectories.
        seed: seed of all random numbers.
        reference: calculator, see `spk_dt.labels.calculator.reference_calculator`.
        progress: called after each step.
        scratch: where each reference calculation has its folder; None takes that for temporary files (TMPDIR).
        time_limit: s, for each reference calculation; None waits.

    Returns:
        the folder with the pieces, which may be removed.

    Raises:
        FileExistsError: if `path` exists; before anything is computed.
        NoLabelError: if the reference method fails at a geometry; what is done is kept, and the same call goes on.
        ValueError: if the folder holds pieces made with other settings or versions, or by another method of the same name,
            another process is at work in it, or an argument makes no sense.
        ImportError: if the package of the reference calculator is not installed.
    """
    recipe = recipe or Recipe()
    if n_trajectories < 1:
        raise ValueError(f"n_trajectories={n_trajectories}: make at least one.")
    names = [f"traj_{i:02d}" for i in range(1, n_trajectories + 1)]
    writer = TrajectoryWriter(path, splits=splits_of(names))
    folder = writer.path.with_name(f"{writer.path.stem}.generate")
    with ReferenceProcess(reference, scratch, time_limit) as process:
        made_by = {"reference": reference, **process.describe()}  # a wrong name shall not wait for the folder
        folder.mkdir(parents=True, exist_ok=True)
        with hold(folder / "lock", f"makes trajectories in '{folder}'; wait for it, or choose another name."):
            check_settings(folder, {**asdict(recipe), "seed": seed, **made_by})
            check_method(folder, {name: [folder / f"{name}.traj"] for name in names}, reference, scratch, time_limit)
            pieces = _Pieces(folder, recipe, seed, process, progress or silent)
            state = pieces.get("relaxed", pieces.relaxed)[-1]
            for i, name in enumerate(names, start=1):
                state = pieces.get(f"start_{i:02d}", partial(pieces.start, i, state))[-1]
                pieces.get(name, partial(pieces.trajectory, i, state))
            writer.metadata = {"reference": made_by}
            with writer:
                for name in names:
                    writer.add(name, ase.io.iread(pieces.file(name), ":"), recipe.timestep_fs)
    return folder


def surface(recipe: Recipe) -> Atoms:
    """4x4 graphene with a vacancy in the middle of the cell, and a Pd6 octahedron standing on it, C31Pd6, not relaxed."""
    atoms = graphene(a=recipe.lattice_ang, size=(4, 4, 1))
    cell = atoms.cell.array.copy()
    cell[2] = (0.0, 0.0, recipe.height_ang)
    atoms.set_cell(cell)
    atoms.pbc = True
    atoms.positions[:, 2] = 0.3 * recipe.height_ang
    distance = np.linalg.norm((atoms.positions - 0.5 * (cell[0] + cell[1]))[:, :2], axis=1)
    vacancy = atoms.positions[distance.argmin()]
    del atoms[distance.argmin()]

    half_diagonal = 2.7 / np.sqrt(2.0)  # of an octahedron with edges of 2.7 Å, a little less than in bulk Pd
    corners = half_diagonal * np.vstack([np.eye(3), -np.eye(3)])
    centre = vacancy + np.array([0.0, 0.0, 1.5 + half_diagonal])  # the lowest corner is 1.5 Å above the vacancy
    return atoms + Atoms("Pd6", positions=centre + corners)


def place_molecule(atoms: Atoms, recipe: Recipe, rng: np.random.Generator) -> Atoms:
    """The surface with H2 above the cluster, flying downwards.

    Orientation and lateral position are random. The relative velocity of the two atoms is that of `temperature_k`; it
    leaves the velocity of the centre as it is.

    Args:
        atoms: surface with velocities.
        recipe: height, offset, bond length, energy, temperature.
        rng: source of random numbers.
    """
    palladium = atoms.positions[atoms.numbers == 46]
    centre = palladium.mean(axis=0)
    centre[:2] += rng.uniform(-recipe.molecule_offset_ang, recipe.molecule_offset_ang, size=2)
    centre[2] = palladium[:, 2].max() + recipe.molecule_height_ang
    axis = rng.standard_normal(3)
    bond = recipe.molecule_bond_ang * axis / np.linalg.norm(axis)

    molecule = Atoms("H2", positions=[centre - 0.5 * bond, centre + 0.5 * bond])
    velocities = _thermal_velocities(molecule, recipe.temperature_k, rng)
    velocities -= velocities.mean(axis=0)
    velocities[:, 2] -= np.sqrt(2.0 * recipe.molecule_energy_ev / molecule.get_masses().sum())
    molecule.set_velocities(velocities)
    return atoms + molecule


@dataclass(frozen=True)
class _Pieces:
    """The files of a folder, and how each of them is made."""

    folder: Path
    recipe: Recipe
    seed: int
    process: ReferenceProcess
    progress: Progress

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.traj"

    def get(self, name: str, make: Callable[[], Iterator[Atoms]]) -> list[Atoms]:
        """Frames of a piece: made if it is not there, and always read, so that both ways give the same numbers."""
        if not self.file(name).exists():
            write_piece(self.file(name), make())
        frames = read_piece(self.file(name))
        steps = max(1, len(frames) - 1)
        self.progress(name, steps, steps)
        return frames

    def relaxed(self) -> Iterator[Atoms]:
        """The relaxed surface."""
        recipe, limit = self.recipe, self.recipe.relax_force_ev_per_ang
        atoms = surface(recipe)
        atoms.calc = InProcess(self.process)
        optimizer = FIRE(atoms, logfile=None)
        for step, _ in enumerate(optimizer.irun(fmax=limit, steps=recipe.relax_steps)):
            self.progress("relaxed", step, recipe.relax_steps)
        force = np.linalg.norm(atoms.get_forces(), axis=1).max()
        if force > limit:
            log.warning(f"the surface has forces of {force:.2g} eV/Å after {step} steps, not {limit:g}; going on.")
        yield frame_of(atoms)

    def start(self, index: int, state: Atoms) -> Iterator[Atoms]:
        """The surface at the start of trajectory `index`; its centre of mass rests."""
        recipe, rng = self.recipe, np.random.default_rng([self.seed, index, 0])
        atoms = self._atoms(state)
        atoms.set_constraint(FixCom())
        if index == 1:
            atoms.set_velocities(_thermal_velocities(atoms, recipe.temperature_k, rng))  # FixCom takes the mean away
        dynamics = Langevin(
            atoms,
            recipe.timestep_fs * ase.units.fs,
            temperature_K=recipe.temperature_k,
            friction=recipe.friction_per_fs / ase.units.fs,
            fixcm=False,
            rng=rng,
        )
        time = recipe.equilibration_fs if index == 1 else recipe.start_interval_fs
        yield list(self._run(f"start_{index:02d}", dynamics, round(time / recipe.timestep_fs)))[-1]

    def trajectory(self, index: int, start: Atoms) -> Iterator[Atoms]:
        """Frames of trajectory `index`."""
        atoms = self._atoms(place_molecule(start, self.recipe, np.random.default_rng([self.seed, index, 1])))
        dynamics = VelocityVerlet(atoms, self.recipe.timestep_fs * ase.units.fs)
        yield from self._run(f"traj_{index:02d}", dynamics, self.recipe.steps)

    def _atoms(self, frame: Atoms) -> Atoms:
        """A copy of a frame with a calculator that remembers nothing of earlier pieces."""
        atoms = frame.copy()
        atoms.calc = InProcess(self.process)
        return atoms

    def _run(self, name: str, dynamics: MolecularDynamics, steps: int) -> Iterator[Atoms]:
        """The first frame and that after each step."""
        return run_dynamics(dynamics, steps, lambda step: self.progress(name, step, steps))


def _thermal_velocities(atoms: Atoms, temperature_k: float, rng: np.random.Generator) -> np.ndarray:
    """[n_atoms, 3] velocities drawn from the Maxwell-Boltzmann distribution, in the unit of ASE."""
    spread = np.sqrt(ase.units.kB * temperature_k / atoms.get_masses())
    return spread[:, None] * rng.standard_normal((len(atoms), 3))
