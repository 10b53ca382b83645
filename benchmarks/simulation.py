"""Molecular dynamics in the loop of `spkmd` (`schnetpack.md.Simulator`), float32, constant energy, no output.

The calculator and its neighbour list come from the configs of `spkmd`. Timed: `simulate(n)`, n steps with n + 1
evaluations of the forces; inside of it, the calls of the neighbour list and of the model. The rest is everything
else, SchNetPack's copying between its system and the model's input for the most part. The baseline is SchNetPack's
own `NeighborListMD`, with the same skin and the same matscipy underneath; for several systems its pairs are wrong
(`configs/md/calculator/neighbor_list/matscipy.yaml`), its time is what it is. The reference code offers `dynamics`,
which finds neighbours anew at each step by pymatgen; timed likewise with n + 1 evaluations. All start from the same
frames in every round, with readouts scaled down so that atoms move as in the data.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import ase.io
import ase.units
import numpy as np
import torch
from ase import Atoms
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from schnetpack.md import Simulator, System
from schnetpack.utils import str2class

from benchmarks.models import data_of, task_of
from benchmarks.settings import Settings
from benchmarks.systems import spread, windows_of
from benchmarks.tables import table
from benchmarks.timing import Clock, alternate, quartiles, ratio

__all__ = ["run"]

#: neighbour list of `spkmd` -> overrides
_LISTS: dict[str, tuple[str, ...]] = {
    "verlet (default)": (),
    "NeighborListMD": ("calculator/neighbor_list=matscipy", "calculator.neighbor_list.cutoff={cutoff}"),
}


class _Stopwatch:
    """Adds up the time that is spent in a function."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.seconds = clock, 0.0

    def around(self, function: Callable) -> Callable:
        def call(*args, **kwargs):
            start = self.clock()
            result = function(*args, **kwargs)
            self.seconds += self.clock() - start
            return result

        return call


class _Simulation:
    """Rounds of n steps from the same start; a call returns seconds, `parts` what was spent on lists and model."""

    def __init__(self, config, frames: Sequence[Atoms], n_steps: int, clock: Clock, precision: int = 32) -> None:
        self._system, self._n_steps, self._clock = System(), n_steps, clock
        self._system.load_molecules([atoms.copy() for atoms in frames])
        instantiate(config.system.initializer).initialize_system(self._system)
        settings = dict(config.calculator)
        neighbors = dict(settings["neighbor_list"])
        for key in ("base_nbl", "collate_fn"):
            if key in neighbors:
                neighbors[key] = str2class(neighbors[key])
        settings["neighbor_list"] = instantiate(neighbors)
        calculator = instantiate(settings)
        integrator = instantiate(config.dynamics.integrator)
        self._simulator = Simulator(self._system, integrator, calculator, [], progress=False)
        self._simulator.to(config.device).to(torch.float32 if precision == 32 else torch.float64)
        self._list, self._model = _Stopwatch(clock), _Stopwatch(clock)
        calculator.neighbor_list.get_neighbors = self._list.around(calculator.neighbor_list.get_neighbors)
        calculator.model.forward = self._model.around(calculator.model.forward)
        self._start = self._system.positions.clone(), self._system.momenta.clone()
        self.parts: list[tuple[float, float]] = []

    def __call__(self) -> float:
        self._system.positions, self._system.momenta = (value.clone() for value in self._start)
        self._list.seconds = self._model.seconds = 0.0
        start = self._clock()
        self._simulator.simulate(self._n_steps)
        seconds = self._clock() - start
        self.parts.append((self._list.seconds, self._model.seconds))
        return seconds


def run(settings: Settings, n_systems: Sequence[int] = (1, 20, 100), n_steps: int | None = None) -> str:
    """Table of times.

    Args:
        settings: how to measure.
        n_systems: systems side by side.
        n_steps: steps of a round; None takes fewer for more systems.
    """
    config = settings.config()
    datamodule = data_of(config)
    reference = settings.their_code()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model_file = Path(folder) / "model"
        task = task_of(config)
        task.model.initialize_transforms(datamodule)
        task.save_model(str(model_file), do_postprocessing=True)
        for number in n_systems:
            windows = windows_of(datamodule, spread(datamodule, number), length=1)
            frames = [_in_units_of_ase(window[0]) for window in windows]
            start = Path(folder) / f"{number}.traj"
            ase.io.write(start, frames)
            steps = n_steps or (max(4, 100 // number) if settings.quick else max(10, 200 // number))
            simulations = {}
            for name, overrides in _LISTS.items():
                texts = [text.format(cutoff=config.globals.cutoff) for text in overrides]
                md = _composed(settings.device, model_file, start, *texts)
                simulations[name] = _Simulation(md, frames, steps, settings.clock)
            contenders: dict[str, Callable[[], float]] = dict(simulations)
            if reference is not None:
                model = reference.model().to(settings.device)
                systems = [window[0] for window in windows]
                contenders["reference code"] = settings.clock.timed(
                    lambda model=model, systems=systems, steps=steps: reference.dynamics(
                        model, systems, steps + 1, settings.device
                    )
                )
            times = alternate(contenders, settings.rounds(5), warm_up=1)
            for name, values in times.items():
                split = ["", "", ""]
                if name in simulations:
                    parts = np.array(simulations[name].parts[1:])
                    in_list, in_model = np.median(parts / values[:, None], axis=0)
                    split = [f"{x:.0%}" for x in (in_list, in_model, 1.0 - in_list - in_model)]
                compared = ratio(times[list(times)[-1]], values)
                rows.append((number, name, quartiles(steps / values, form=".3g"), *split, compared))
    base = "NeighborListMD" if reference is None else "reference"
    header = ("systems", "neighbour list", "steps per second", "list", "model", "rest", f"{base} / this, time")
    return table(f"Molecular dynamics, 39 atoms per system, {settings.clock.name}", header, rows)


def _composed(device: str, model_file: Path, start: Path, *overrides: str):
    """The config of `spkmd`."""
    ours = [f"calculator.model_file={model_file}", f"system.molecule_file={start}", f"device={device}"]
    ours += ["system/initializer=frames", "simulation_dir=unused"]
    with initialize_config_module("schnetpack.md.md_configs", version_base="1.2"):
        return compose("config", overrides=[*ours, *overrides])


def _in_units_of_ase(atoms: Atoms) -> Atoms:
    """With velocities as ASE understands them, not in Å/fs."""
    atoms = atoms.copy()
    atoms.set_velocities(atoms.get_velocities() / ase.units.fs)
    return atoms
