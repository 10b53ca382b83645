"""Simulations that a model in training runs itself, from training frames on; on-policy labels are of states of these."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import ase.units
import torch
from ase import Atoms
from schnetpack import properties as spk_properties
from schnetpack.data.loader import _atoms_collate_fn

from spk_dt import properties, units
from spk_dt.data.windows import TrajectoryWindows
from spk_dt.dynamics import Integrator, Langevin, State, VelocityVerlet
from spk_dt.training.task import DynamicTrainingTask
from spk_dt.trajectories.fixed_atoms import set_mobile
from spk_dt.trajectories.frames import Frames
from spk_dt.trajectories.stored_properties import set_total_charge

__all__ = ["ModelSimulations"]

#: times as many states are drawn as are asked for, in place of those that exploded simulations do not reach
_SPARE = 4


@dataclass(eq=False)
class ModelSimulations:
    """Simulations side by side that go on from one call to the next, with the model as it then is.

    So they reach later times, and failures that are still there. One that explodes, or has run its time, starts again from
    another training frame.

    Args:
        n_systems: number of simulations, from training frames drawn at random.
        steps: steps of each simulation in a round.
        max_steps: steps after which a simulation starts again.
        time_step: time step in units of that of the data; above one, simulations come further in as many steps. Rounds of
            `spk_dt.training.OnPolicyLabels` halve it where it would not conserve energy.
        kinetic_energy: of a simulation at its start, in units of that of the training frame; above one, rare events come
            sooner, and labels reach to higher energies, which should not be below those at which the model will be used.
        temperature: K, of a Langevin thermostat; None simulates at constant energy.
        friction: per fs, of that thermostat.
        systems: the present states, as samples of one frame.
        age: steps that each has made.

    Raises:
        ValueError: if an argument makes no sense, or two contradict each other.
    """

    n_systems: int = 4
    steps: int = 800
    max_steps: int = 8000
    time_step: float = 1.0
    kinetic_energy: float = 1.0
    temperature: float | None = None
    friction: float | None = None
    systems: list[dict[str, torch.Tensor]] = field(default_factory=list, init=False, repr=False)
    age: list[int] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        group = "callbacks.on_policy.simulations"
        for name in ("n_systems", "steps", "max_steps", "time_step", "kinetic_energy", "temperature", "friction"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{group}.{name}={value} must be positive.")
        if (self.temperature is None) != (self.friction is None):
            raise ValueError(
                f"{group}.temperature={self.temperature} (K) and friction={self.friction} (1/fs) make a thermostat "
                "together: set both, for example temperature=300 friction=0.01, or both to null for constant energy."
            )
        if self.temperature is not None and self.kinetic_energy != 1.0:
            raise ValueError(
                f"{group}.kinetic_energy={self.kinetic_energy} is for simulations at constant energy, but temperature="
                f"{self.temperature} K: set {group}.kinetic_energy=1, or temperature=null and friction=null."
            )

    def start(self, windows: TrajectoryWindows, targets: Collection[str] = (), time_step: float | None = None) -> None:
        """Put simulations that are not there yet, or have run their time, at training frames drawn at random.

        Args:
            windows: of the training partition.
            targets: names of what is trained on; it does not go along.
            time_step: in place of the one that is set, if that is too long (`spk_dt.training.time_step`).
        """
        step = self.time_step if time_step is None else time_step
        for i in range(self.n_systems):
            if i < len(self.systems) and self.age[i] < self.max_steps:
                continue
            sample = windows[int(torch.randint(len(windows), ()))]
            self.systems[i : i + 1] = [_beginning(sample, targets, step, self.kinetic_energy)]
            self.age[i : i + 1] = [0]

    @classmethod
    def at(
        cls, samples: Iterable[dict[str, torch.Tensor]], targets: Collection[str] = (), time_step: float = 1.0
    ) -> Self:
        """Simulations at given frames, each a sample of `TrajectoryWindows`; see `start`."""
        systems = [_beginning(sample, targets, time_step) for sample in samples]
        simulations = cls(n_systems=len(systems), time_step=time_step)
        simulations.systems, simulations.age = systems, [0] * len(systems)
        return simulations

    def start_again(self, i: int) -> None:
        """Let simulation i start from another training frame next time."""
        self.age[i] = self.max_steps

    def run(self, task: DynamicTrainingTask, frames: Frames, n_states: int) -> tuple[list[Atoms], int]:
        """Run the model for `steps` steps from where the simulations are.

        Args:
            task: whose model it is; it is in training mode again afterwards if it was before.
            frames: of the data, for their units.
            n_states: number of states to draw at random from the simulations, until they end or explode.

        Returns:
            at most `n_states` states in the units of ASE (`info["system"]` is the number of the simulation, and
            `info["timestep_fs"]` its time step in fs), and how many simulations have exploded.
        """
        batch = task.transfer_batch_to_device(_atoms_collate_fn(self.systems), task.device, 0)
        drawn = torch.randperm(self.n_systems * self.steps)[: _SPARE * n_states].tolist()
        wanted: dict[int, list[int]] = {}
        for number in drawn:
            wanted.setdefault(1 + number // self.n_systems, []).append(number)
        guard, found = task.guard(batch), {}
        sizes = batch[spk_properties.n_atoms].tolist()
        training = task.training
        task.eval()
        with torch.no_grad():
            for at in task.rollout(batch, self.steps + 1, guard=guard, integrator=self._integrator(frames)):
                state = at.state
                for number in wanted.get(at.step, []):
                    i = number % self.n_systems
                    if not guard.exploded[i]:
                        positions, velocities = (x.split(sizes)[i] for x in (state.positions, state.velocities))
                        found[number] = self.atoms(i, positions, velocities, frames)
        task.train(training)
        for i, system in enumerate(self.systems):
            system[spk_properties.R] = state.positions.split(sizes)[i].cpu()
            system[properties.velocities] = state.velocities.split(sizes)[i].cpu()
            self.age[i] = self.max_steps if guard.exploded[i] else self.age[i] + self.steps
        return [found[number] for number in drawn if number in found][:n_states], int(guard.exploded.sum())

    def atoms(self, i: int, positions: torch.Tensor, velocities: torch.Tensor, frames: Frames) -> Atoms:
        """A state of simulation i, in the units of ASE.

        Args:
            i: number of the simulation.
            positions: [n_atoms, 3] in the length unit of the data.
            velocities: [n_atoms, 3] in the length and time units of the data.
            frames: of the data, for their units.
        """
        system = self.systems[i]
        length = units.conversion(frames.distance_unit, "Ang", "distance")
        time_unit = _time_unit_in_fs(frames)
        atoms = Atoms(
            system[spk_properties.Z].numpy(),
            length * positions.double().cpu().numpy(),
            cell=length * system[spk_properties.cell][0].double().numpy(),
            pbc=system[spk_properties.pbc].numpy(),
            info={"system": i, "timestep_fs": time_unit * float(system[properties.time_step])},
        )
        for key in self.inputs(frames):
            atoms.info[key] = system[key].double().numpy()
        if spk_properties.total_charge in system:
            set_total_charge(atoms, float(system[spk_properties.total_charge]))
        atoms.set_masses(system[spk_properties.masses].double().numpy())
        set_mobile(atoms, system[properties.mobile].numpy())
        atoms.set_velocities(velocities.double().cpu().numpy() * length / (time_unit * ase.units.fs))
        return atoms

    def states(self, frames: Frames, state: State | None = None) -> list[Atoms]:
        """All simulations in the units of ASE: where they are, or at a state of a rollout of them."""
        if state is None:
            return [
                self.atoms(i, one[spk_properties.R], one[properties.velocities], frames)
                for i, one in enumerate(self.systems)
            ]
        sizes = [len(one[spk_properties.R]) for one in self.systems]
        return [
            self.atoms(i, x, v, frames)
            for i, (x, v) in enumerate(zip(state.positions.split(sizes), state.velocities.split(sizes), strict=True))
        ]

    def inputs(self, frames: Frames) -> list[str]:
        """What the data have that the simulations go on with, beside the structure."""
        return [key for key in frames.values if key in self.systems[0] and key not in properties.STRUCTURE]

    def state_dict(self) -> dict[str, Any]:
        """Where the simulations are."""
        return {"systems": self.systems, "age": list(self.age)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.systems, self.age = state_dict["systems"], list(state_dict["age"])
        for system in self.systems:  # of a version that let all atoms move
            system.setdefault(properties.mobile, torch.ones_like(system[spk_properties.R], dtype=torch.bool))

    def _integrator(self, frames: Frames) -> Integrator:
        """Of constant energy, or of a temperature; in the units of the data."""
        if self.temperature is None or self.friction is None:
            return VelocityVerlet()
        ev = units.conversion("eV", frames.units[spk_properties.energy], "energy")
        return Langevin(ase.units.kB * self.temperature * ev, self.friction * _time_unit_in_fs(frames))


def _beginning(
    sample: dict[str, torch.Tensor], targets: Collection[str], time_step: float, kinetic_energy: float = 1.0
) -> dict[str, torch.Tensor]:
    """The state of a simulation at the first frame of a window."""
    system = {k: value for k, value in sample.items() if properties.is_input(k) and k not in targets}
    system[properties.velocities] = system[properties.velocities] * kinetic_energy**0.5
    system[properties.time_step] = system[properties.time_step] * time_step
    return system


def _time_unit_in_fs(frames: Frames) -> float:
    """The unit of time of the data."""
    return units.time_unit_in_fs(frames.units[spk_properties.energy], frames.distance_unit)
