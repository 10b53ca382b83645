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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import ase.units
import numpy as np
from ase import Atoms
from ase.build import graphene
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from spk_dt.labels.pieces import InProcess, frame_of, read_piece, run_dynamics, thermal_velocities, write_piece
from spk_dt.labels.plan import HowToMake, Progress, carry_out
from spk_dt.labels.reference_process import NoLabelError, ReferenceProcess
from spk_dt.labels.side_by_side import Task

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
    **how: Unpack[HowToMake],
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
        how: see `spk_dt.labels.plan.carry_out`, as what is raised.

    Returns:
        the folder with the pieces, which may be removed.
    """
    recipe = recipe or Recipe()
    if n_trajectories < 1:
        raise ValueError(f"n_trajectories={n_trajectories}: make at least one.")
    plan = _OfRecipe(recipe, n_trajectories, seed)
    return carry_out(plan, path, reference, **how)


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
    velocities = thermal_velocities(molecule, recipe.temperature_k, rng)
    velocities -= velocities.mean(axis=0)
    velocities[:, 2] -= np.sqrt(2.0 * recipe.molecule_energy_ev / molecule.get_masses().sum())
    molecule.set_velocities(velocities)
    return atoms + molecule


class _OfRecipe:
    """The pieces of the recipe, see the head of this file; `spk_dt.labels.plan.Plan` says what the methods are."""

    inner_steps = 1

    def __init__(self, recipe: Recipe, n_trajectories: int, seed: int) -> None:
        self.recipe, self.seed = recipe, seed
        self.names = [f"traj_{i:02d}" for i in range(1, n_trajectories + 1)]
        self.settings: dict[str, Any] = {**asdict(recipe), "seed": seed}
        self.timestep_fs = recipe.timestep_fs
        self.metadata: dict[str, Any] = {}

    def differences(self, recorded: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        return []

    def pieces(self, folder: Path) -> dict[str, list[Path]]:
        names = ["relaxed", *(name.replace("traj", "start") for name in self.names), *self.names]
        return {name: [folder / f"{name}.traj"] for name in names if (folder / f"{name}.traj").exists()}

    def frames(self, folder: Path, name: str) -> Iterator[Atoms]:
        return iter(read_piece(folder / f"{name}.traj"))

    def way_out(self, folder: Path) -> str:
        return ""

    def tasks(self, folder: Path, progress: Progress) -> list[Task]:
        """The relaxation; each start begins when the one before it is done, and its trajectory when it is done itself."""

        def get(name: str, make: Callable[..., Iterator[Atoms]], *arguments: Any) -> Atoms:
            """Last frame of a piece: made if it is not there, and always read, so that both ways give the same numbers."""
            file = folder / f"{name}.traj"
            if not file.exists():
                write_piece(file, make(*arguments, lambda done, steps: progress(name, done, steps)))
            frames = read_piece(file)
            steps = max(1, len(frames) - 1)
            progress(name, steps, steps)
            return frames[-1]

        def begin(process: ReferenceProcess) -> list[Task]:
            return [start(1, get("relaxed", self._relaxed, process))]

        def start(index: int, state: Atoms) -> Task:
            name = f"start_{index:02d}"

            def run(process: ReferenceProcess) -> list[Task]:
                begun = get(name, self._start, process, index, state)
                following = [start(index + 1, begun)] if index < len(self.names) else []
                return [trajectory(index, begun), *following]

            return Task(name, run)

        def trajectory(index: int, begun: Atoms) -> Task:
            def run(process: ReferenceProcess) -> list[Task]:
                get(self.names[index - 1], self._trajectory, process, index, begun)
                return []

            return Task(self.names[index - 1], run)

        return [Task("relaxed", begin)]

    def _relaxed(self, process: ReferenceProcess, report: Callable[[int, int], None]) -> Iterator[Atoms]:
        """The relaxed surface."""
        recipe, limit, step = self.recipe, self.recipe.relax_force_ev_per_ang, 0
        atoms = surface(recipe)
        atoms.calc = InProcess(process)
        optimizer = FIRE(atoms, logfile=None)
        try:
            for step, _ in enumerate(optimizer.irun(fmax=limit, steps=recipe.relax_steps)):
                report(step, recipe.relax_steps)
        except NoLabelError as error:
            raise NoLabelError(f"step {step}: {error}") from error
        force = np.linalg.norm(atoms.get_forces(), axis=1).max()
        if force > limit:
            log.warning(f"the surface has forces of {force:.2g} eV/Å after {step} steps, not {limit:g}; going on.")
        yield frame_of(atoms)

    def _start(
        self, process: ReferenceProcess, index: int, state: Atoms, report: Callable[[int, int], None]
    ) -> Iterator[Atoms]:
        """The surface at the start of trajectory `index`; its centre of mass rests."""
        recipe, rng = self.recipe, np.random.default_rng([self.seed, index, 0])
        atoms = state.copy()
        atoms.calc = InProcess(process)
        atoms.set_constraint(FixCom())
        if index == 1:
            atoms.set_velocities(thermal_velocities(atoms, recipe.temperature_k, rng))  # FixCom takes the mean away
        dynamics = Langevin(
            atoms,
            recipe.timestep_fs * ase.units.fs,
            temperature_K=recipe.temperature_k,
            friction=recipe.friction_per_fs / ase.units.fs,
            fixcm=False,
            rng=rng,
        )
        time = recipe.equilibration_fs if index == 1 else recipe.start_interval_fs
        steps = round(time / recipe.timestep_fs)
        yield from run_dynamics(
            dynamics, range(steps + 1), lambda done: report(done, steps), lambda step: step == steps
        )

    def _trajectory(
        self, process: ReferenceProcess, index: int, start: Atoms, report: Callable[[int, int], None]
    ) -> Iterator[Atoms]:
        """Frames of trajectory `index`."""
        atoms = place_molecule(start, self.recipe, np.random.default_rng([self.seed, index, 1]))
        atoms.calc = InProcess(process)
        dynamics, steps = VelocityVerlet(atoms, self.recipe.timestep_fs * ase.units.fs), self.recipe.steps
        return run_dynamics(dynamics, range(steps + 1), lambda done: report(done, steps), lambda step: True)
