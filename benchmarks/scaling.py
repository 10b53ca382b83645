"""Time and memory against the number of atoms, for the embedded cell replicated in the plane.

Timed, each size in processes of its own: the neighbour list transform of the data; energy and forces of the model in
evaluation mode, its edges at hand; a training step with S = 1 (`benchmarks.training_step`). Memory is the peak of the
process minus what it had after imports (`benchmarks.points`).
"""

from collections.abc import Sequence

import ase.units
import numpy as np
import torch
from ase import Atoms
from schnetpack import properties
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.transform import NeighborListTransform

from benchmarks.models import LightningSteps, data_of, task_of
from benchmarks.points import Memory, fits, in_process, mebibytes
from benchmarks.settings import Settings
from benchmarks.systems import windows_of, within
from benchmarks.tables import table
from benchmarks.timing import alternate
from spk_dt import properties as dt_properties

__all__ = ["run"]

#: copies of the 39 atoms in the plane
REPEATS = ((1, 1), (2, 2), (4, 4), (8, 8), (16, 16))


def run(settings: Settings, repeats: Sequence[tuple[int, int]] = REPEATS) -> str:
    """Table of times and memory.

    Args:
        settings: how to measure.
        repeats: copies of the cell in the plane, ascending.
    """
    rows, last = [], {}
    for repeat in repeats:
        copies = repeat[0] * repeat[1]
        row = [39 * copies]
        for kind in ("forces", "training"):
            known = last.get(kind)
            expected = 0.0 if known is None else known[1] * copies / known[0]
            if not fits(expected, settings.device):
                row += ["does not fit here", "", f"about {mebibytes(expected)}"]
                last[kind] = (copies, expected)
                continue
            n_edges, in_list, seconds, size = in_process(_point, settings, repeat, kind)
            last[kind] = (copies, size)
            if kind == "forces":
                row += [n_edges, f"{in_list * 1e6 / row[0]:.1f}"]
            row += [f"{seconds * 1e3:.1f}", f"{seconds * 1e6 / row[0]:.0f}", mebibytes(size)]
        rows.append(row if len(row) == 9 else [*row, *[""] * (9 - len(row))])
    header = ("atoms", "edges", "list: µs/atom", "energy and forces / ms", "µs/atom", "MiB")
    header += ("training step / ms", "µs/atom", "MiB")
    return table(f"Scaling with the number of atoms, one system, {settings.clock.name}", header, rows)


def _point(settings: Settings, repeat: tuple[int, int], kind: str) -> tuple[int, float, float, int]:
    """Edges, seconds of the neighbour list, seconds, and bytes."""
    config = settings.config()
    task_of(config)  # imports
    memory = Memory(settings.device)
    datamodule = data_of(config)
    atoms = windows_of(datamodule, [0], length=1)[0][0]
    time_step = float(datamodule.train_dataset[0][dt_properties.time_step])
    replica = atoms.repeat((*repeat, 1))
    in_list, batch = _batch(
        replica, np.tile(atoms.get_forces(), (repeat[0] * repeat[1], 1)), time_step, datamodule, settings
    )
    near = within(batch, float(config.globals.cutoff))
    task = task_of(config)
    n_rounds = settings.rounds(5)
    if kind == "training":
        steps = LightningSteps(task, datamodule, batch, config, settings.device)
        times = alternate({kind: settings.clock.timed(steps)}, n_rounds, warm_up=1)[kind]
    else:
        model = task.model.to(settings.device).eval()
        batch = {key: value.to(settings.device) for key, value in near.items()}
        times = alternate({kind: settings.clock.timed(lambda: model(dict(batch)))}, n_rounds, warm_up=1)[kind]
    return len(near[properties.idx_i]), in_list, float(np.median(times)), memory()


def _batch(
    atoms: Atoms, forces: np.ndarray, time_step: float, datamodule, settings: Settings
) -> tuple[float, dict[str, torch.Tensor]]:
    """One system as a batch, with the transforms of the data; and how long its neighbour list took."""
    sample = {
        properties.idx: torch.tensor([0]),
        properties.n_atoms: torch.tensor([len(atoms)]),
        properties.Z: torch.tensor(atoms.numbers, dtype=torch.long),
        properties.R: torch.tensor(atoms.positions),
        properties.cell: torch.tensor(atoms.cell.array)[None],
        properties.pbc: torch.tensor(atoms.pbc),
        properties.masses: torch.tensor(atoms.get_masses()),
        dt_properties.velocities: torch.tensor(atoms.get_velocities() / ase.units.fs),
        dt_properties.time_step: torch.tensor([time_step]),
        properties.energy: torch.zeros(1, dtype=torch.float64),
        properties.forces: torch.tensor(forces),
    }
    seconds = 0.0
    for transform in datamodule.train_dataset.transforms:
        if isinstance(transform, NeighborListTransform):
            find = settings.clock.timed(lambda f=transform, x=sample: f(dict(x)))
            seconds += min(find() for _ in range(3))
        sample = transform(sample)
    return seconds, _atoms_collate_fn([sample])
