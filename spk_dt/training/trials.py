"""Trials of a model in training: simulations under the conditions of its later use, judged as a certificate judges them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, sqrt
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from spk_dt.certificate.committee import WatchedEngine
from spk_dt.certificate.conditions import Conditions
from spk_dt.certificate.criteria import Criteria, Scales
from spk_dt.certificate.engines import Engine, ModelEngine, ModelOptions
from spk_dt.certificate.simulations import Batch, read_states
from spk_dt.certificate.verdict import Judge, Label, judged
from spk_dt.training.pretrained import model_path

__all__ = ["Ensemble", "Trial", "TrialSimulations"]

_GROUP = "callbacks.on_policy.simulations"


@dataclass(frozen=True)
class Ensemble:
    """In which ensemble a simulation runs.

    Args:
        temperature: of a Langevin thermostat, K; None keeps the energy constant.
        heat: kinetic energy at the start in units of that of the training frame.
        scales: what errors are measured by there.
    """

    temperature: float | None
    heat: float
    scales: Scales

    def __str__(self) -> str:
        """In words."""
        return (
            f"kinetic energy x {self.heat:g}" if self.temperature is None else f"thermostat at {self.temperature:g} K"
        )


@dataclass(frozen=True)
class TrialSimulations:
    """How the model simulates in trials.

    Args:
        n_systems: simulations side by side, from training frames drawn at random; they take turns in the ensembles.
        interval_ps: time from one state that is kept to the next, ps; failures are found to this resolution.
        kinetic_energy: of simulations at constant energy at their start, in units of that of the training frame; above one,
            rare events come sooner. One ensemble each.
        temperature: of Langevin thermostats, K. One ensemble each.
        friction: of the thermostats, 1/fs.
        time_step: time step in units of that of the data; hardening halves it where it would not conserve energy.
        compile: compile the model for the simulations.
        precision: bits of the floating-point numbers in simulations, 32 or 64.
        committee: stored models, or folders of their runs, that are evaluated beside the model. The state of each simulation
            in which they differ most is labelled for the verdict, too (`spk_dt.certificate.committee`).

    Raises:
        ValueError: if an argument makes no sense, or there is no ensemble.
    """

    n_systems: int = 4
    interval_ps: float = 0.25
    kinetic_energy: Sequence[float] = (1.0, 2.0)
    temperature: Sequence[float] = ()
    friction: float = 0.01
    time_step: float = 2.0
    compile: bool = True
    precision: int = 32
    committee: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        for name in ("n_systems", "interval_ps", "friction", "time_step"):
            if not 0.0 < getattr(self, name) < inf:
                raise ValueError(f"{_GROUP}.{name}={getattr(self, name)} must be positive.")
        for name in ("kinetic_energy", "temperature"):
            values = list(getattr(self, name))
            if not all(0.0 < value < inf for value in values):
                raise ValueError(f"{_GROUP}.{name}={values}: all must be positive numbers.")
        if not (len(self.kinetic_energy) or len(self.temperature)):
            raise ValueError(
                f"{_GROUP}.kinetic_energy and temperature are both empty: name at least one ensemble, for example "
                "kinetic_energy=[1,2] for constant energy, or temperature=[300,600] for a thermostat."
            )
        if self.n_systems < len(self.kinetic_energy) + len(self.temperature):
            raise ValueError(
                f"{_GROUP}.n_systems={self.n_systems} is less than the number of ensembles, "
                f"{len(self.kinetic_energy)} of kinetic_energy and {len(self.temperature)} of temperature, so that some "
                "would never be simulated."
            )
        if self.precision not in (32, 64):
            raise ValueError(f"{_GROUP}.precision={self.precision} must be 32 or 64.")

    def engine(self, file: Path, energy_unit: str, position_unit: str, device: str) -> ModelEngine:
        """What runs the simulations of a stored model, watched by the committee if there is one.

        Raises:
            FileNotFoundError: if a model of the committee is not there.
        """
        how = ModelOptions(
            energy_unit=energy_unit,
            position_unit=position_unit,
            precision=self.precision,
            compile=self.compile,
            device=device,
        )
        if not self.committee:
            return ModelEngine(file, **how)
        return WatchedEngine(file, [model_path(one) for one in self.committee], **how)

    def ensembles(self, scales: Scales) -> list[Ensemble]:
        """The ensembles, given the scales of the data.

        At constant energy, what is added to the kinetic energy is shared with the potential energy, as in harmonic systems.
        """

        def at(temperature: float) -> Scales:
            factor = sqrt(temperature / scales.temperature)
            return Scales(temperature, {z: factor * value for z, value in scales.force.items()})

        constant = [Ensemble(None, heat, at(scales.temperature * (1.0 + heat) / 2.0)) for heat in self.kinetic_energy]
        return constant + [Ensemble(kelvin, kelvin / scales.temperature, scales) for kelvin in self.temperature]

    def trial(
        self, folder: Path, starts: Sequence[tuple[Atoms, float]], scales: Scales, first: int, seed: int
    ) -> "Trial":
        """Simulations that can be run.

        Args:
            folder: with their files.
            starts: frames with momenta and reference labels, and the time step of their data, fs.
            scales: of the data.
            first: number of the ensemble of the first simulation; the others follow in turn.
            seed: of the random forces of the thermostats.
        """
        ensembles = self.ensembles(scales)
        of = [ensembles[(first + i) % len(ensembles)] for i in range(len(starts))]
        frames = []
        for (atoms, _), ensemble in zip(starts, of, strict=True):
            frame = atoms.copy()
            frame.set_momenta(sqrt(ensemble.heat) * atoms.get_momenta(), apply_constraint=False)
            frames.append(frame)
        kinds = [(one.temperature, self.time_step * step) for one, (_, step) in zip(of, starts, strict=True)]
        batches = {}
        for number, (kelvin, step) in enumerate(dict.fromkeys(kinds)):
            members = tuple(i for i, kind in enumerate(kinds) if kind == (kelvin, step))
            conditions = Conditions(self.interval_ps, 1, kelvin, None, self.friction, seed=seed)
            batches[Batch(folder / f"batch_{number}", number, members, step)] = conditions
        known = [(atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)) for atoms, _ in starts]
        return Trial(folder, frames, known, of, [self.time_step * step for _, step in starts], batches)


@dataclass
class Trial:
    """Simulations from given starts, which can be lengthened, and are in files so that they can be gone on with.

    Args:
        folder: with the files.
        starts: the start frames, with momenta.
        known: reference labels of these, of the data.
        ensembles: of each simulation.
        timesteps_fs: of each simulation, fs.
        batches: the simulations that run side by side, with their conditions for one interval.
        states: of each simulation so far, from the start on, with energy and forces of the model.
        stress: [3, 3] of states, by simulation and number, where labels have it.
    """

    folder: Path
    starts: list[Atoms]
    known: list[Label]
    ensembles: list[Ensemble]
    timesteps_fs: list[float]
    batches: dict[Batch, Conditions]
    states: dict[int, list[Atoms]] = field(default_factory=dict)
    stress: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def run(self, engine: Engine, ps: float, progress: Callable[[], None]) -> None:
        """Simulate on, until so many ps from the start; `progress` is called after each interval of a batch."""
        n_intervals = round(ps / next(iter(self.batches.values())).time_ps)  # the same in all of them
        for batch, one in self.batches.items():
            batch.folder.mkdir(parents=True, exist_ok=True)
            conditions = replace(one, time_ps=n_intervals * one.time_ps, n_states=n_intervals)
            batch.run(lambda: engine, self.starts, conditions, progress)
        # a file of a later interval may be there if the trial was interrupted and is run again
        self.states = {i: states[: n_intervals + 1] for i, states in read_states(list(self.batches))}

    def judges(self, criteria: Criteria) -> Mapping[int, Judge]:
        """What judges each simulation as far as it has come."""
        friction = next(iter(self.batches.values())).friction  # the same in all of them
        found = {}
        for i, states in self.states.items():
            one = self.ensembles[i]
            found[i] = judged(states, [one.temperature] * len(states), criteria, one.scales, friction)
        return found

    def labelled(self, i: int, k: int, label: Label) -> Atoms:
        """State k of simulation i with a label of the reference method, and the time step of its simulation."""
        atoms = self.states[i][k].copy()
        atoms.info = {"timestep_fs": self.timesteps_fs[i]}
        energy, forces = label
        results = {"stress": full_3x3_to_voigt_6_stress(self.stress[i, k])} if (i, k) in self.stress else {}
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, **results)
        return atoms
