"""Validation by free simulation: for how long does a simulation of the model stay where the data are?

A smaller error of the forces does not announce a longer life (Fu et al., TMLR 2023, arXiv 2210.07237). So now and then the
model simulates at constant energy from validation frames, and the time is taken until it leaves what the training data show:
an atom moves too far in a step, two atoms come closer than any two in the data, an atom is farther from all others than any
in the data, or the kinetic energy is beyond its fluctuation. No reference method is needed. That a simulation passes proves
little (`spkdt certify` does that); that it fails means that the potential is no good.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import ase.units
import numpy as np
import pytorch_lightning as pl
import torch
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import natural_cutoffs, neighbor_list
from pytorch_lightning.callbacks import Callback
from schnetpack.data.loader import _atoms_collate_fn

from spk_dt import processes
from spk_dt.data.datamodule import TrajectoryDataModule
from spk_dt.data.windows import TrajectoryWindows
from spk_dt.training.model_simulations import ModelSimulations
from spk_dt.trajectories.fixed_atoms import degrees_of_freedom

__all__ = ["DataLimits", "FreeSimulations"]

log = logging.getLogger(__name__)

#: a contact below this part of the closest one in the data, and a gap above this multiple of the widest, are not of the data
_CLOSER, _WIDER = 0.8, 1.5
#: standard deviations of the kinetic energy of a canonical ensemble above its largest value in the data
_KINETIC_DEVIATIONS = 6.0
#: distances beyond this multiple are not measured
_FAR = 3.0
#: training frames that the limits are taken from, at most
_N_FRAMES = 200
#: states of a simulation that are looked at
_N_LOOKS = 100


@dataclass(frozen=True)
class DataLimits:
    """What the training data show.

    Args:
        contact: smallest distance of two atoms, over the sum of their covalent radii.
        gap: largest distance of an atom to its nearest neighbour, over the sum of their covalent radii.
        kinetic: largest kinetic energy per degree of freedom, eV.
    """

    contact: float
    gap: float
    kinetic: float

    @classmethod
    def of(cls, frames: Iterable[Atoms]) -> Self:
        """Limits of frames with momenta."""
        seen = [(*_nearest(atoms), atoms.get_kinetic_energy() / degrees_of_freedom(atoms)) for atoms in frames]
        contact, gap, kinetic = np.array(seen).T
        return cls(float(contact.min()), float(gap.max()), float(kinetic.max()))

    def broken(self, atoms: Atoms) -> str | None:
        """In what a state is not of the data; None if in nothing."""
        contact, gap = _nearest(atoms)
        freedom = degrees_of_freedom(atoms)
        if not np.isfinite(atoms.positions).all():
            return "positions are not finite"
        if contact < _CLOSER * self.contact:
            return (
                f"two atoms are at {contact:.2f} of the sum of their covalent radii, in the data at {self.contact:.2f}"
            )
        if gap > _WIDER * self.gap:
            return f"an atom is {gap:.1f} covalent radii from its neighbour, in the data {self.gap:.1f}"
        limit = self.kinetic * (1.0 + _KINETIC_DEVIATIONS * np.sqrt(2.0 / freedom))
        kinetic = atoms.get_kinetic_energy() / freedom
        if not kinetic <= limit:
            return f"its temperature is {2.0 * kinetic / ase.units.kB:.0f} K"
        return None


class FreeSimulations(Callback):
    """Simulates from validation frames, with the weights that are validated, and logs for how long that goes well.

    Logs ``val_stable_time``, the mean time in ps until a simulation leaves the data, and ``val_loss_stable``, the validation
    loss over the part of the time that is stable, by which `schnetpack.train.ModelCheckpoint` can choose the model. In
    between both go on with the last simulation; before the first one a single step counts as stable.

    The cost is a share of that of the training, counted in evaluations of the model, so that it is the same each time.

    Args:
        n_systems: number of simulations, side by side, from validation frames that are evenly spaced.
        steps: steps of each.
        time_step: in units of that of the data.
        share: evaluations of the model by simulations for each one by training.
        stable: part of the time that was stable in the last simulations.
        stable_ps: this time, ps.

    Raises:
        ValueError: if an argument is not positive.
    """

    def __init__(self, n_systems: int = 4, steps: int = 2000, time_step: float = 1.0, share: float = 0.2) -> None:
        for name, value in {"n_systems": n_systems, "steps": steps, "time_step": time_step, "share": share}.items():
            if not value > 0:
                raise ValueError(f"callbacks.free_simulations.{name}={value} must be positive.")
        self.n_systems, self.steps, self.time_step, self.share = n_systems, steps, time_step, share
        self.stable, self.stable_ps = 1.0 / steps, 0.0
        self._credit = 0.0
        self._limits: DataLimits | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count what the training evaluates in this process; the first one simulates, and the others wait."""
        self._credit += self.share * pl_module.force_evaluations(batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Simulate, if it is time, and log."""
        if trainer.sanity_checking:
            return
        self.load_state_dict(processes.by_first(lambda: self._simulated(trainer, pl_module)))
        loss = trainer.callback_metrics.get("val_loss")
        pl_module.log("val_stable_time", self.stable_ps)
        if loss is not None:
            pl_module.log("val_loss_stable", float(loss) / self.stable)

    def state_dict(self) -> dict[str, float]:
        """What was found last, and what was evaluated since."""
        return {"stable": self.stable, "stable_ps": self.stable_ps, "credit": self._credit}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.stable, self.stable_ps, self._credit = (state_dict[key] for key in ("stable", "stable_ps", "credit"))

    def _simulated(self, trainer: pl.Trainer, task: Any) -> dict[str, float]:
        """State after simulations, if it is time for them."""
        if self._credit >= self.n_systems * self.steps:
            self._credit = 0.0
            self._simulate(trainer.datamodule, task)  # type: ignore[attr-defined]  # Lightning sets it
        return self.state_dict()

    def _simulate(self, datamodule: TrajectoryDataModule, task: Any) -> None:
        """Run the model until the end, or until no simulation is left that goes well."""
        frames, targets = datamodule.frames, task.target_names()
        if self._limits is None:
            seen = ModelSimulations.at(_spaced(datamodule.train_dataset, _N_FRAMES), targets)
            self._limits = DataLimits.of(seen.states(frames))
        simulations = ModelSimulations.at(_spaced(datamodule.val_dataset, self.n_systems), targets, self.time_step)
        batch = task.transfer_batch_to_device(_atoms_collate_fn(simulations.systems), task.device, 0)
        guard, reason, every = task.guard(batch), "", max(1, self.steps // _N_LOOKS)
        stable: dict[int, int] = {}  # steps of those that have failed
        with torch.no_grad():
            for at in task.rollout(batch, self.steps + 1, guard=guard):
                if at.step % every and at.step != self.steps:
                    continue
                states = simulations.states(frames, at.state)
                for i in range(len(states)):
                    why = "an atom moves too far in a step" if guard.exploded[i] else self._limits.broken(states[i])
                    if why is not None and i not in stable:
                        stable[i], reason = at.step, reason or why
                if len(stable) == len(states):
                    break
        found = np.array([[stable.get(i, self.steps), atoms.info["timestep_fs"]] for i, atoms in enumerate(states)])
        self.stable = max(float(found[:, 0].mean()) / self.steps, 1.0 / self.steps)
        self.stable_ps = float(1e-3 * found.prod(axis=1).mean())
        log.info(
            "free simulations: stable for %.3g of %.3g ps%s",
            *(
                self.stable_ps,
                1e-3 * self.steps * found[:, 1].mean(),
                f"; the first fails as {reason}" if reason else "",
            ),
        )


def _spaced(windows: TrajectoryWindows, number: int) -> Iterator[dict[str, torch.Tensor]]:
    """Windows that are evenly spaced, at most so many."""
    for index in np.unique(np.linspace(0, len(windows) - 1, number).round().astype(int)):
        yield windows[int(index)]


def _nearest(atoms: Atoms) -> tuple[float, float]:
    """Smallest and largest distance of an atom to its nearest neighbour, over the sum of their covalent radii."""
    i, j, distance = neighbor_list("ijd", atoms, natural_cutoffs(atoms, mult=_FAR))
    nearest = np.full(len(atoms), np.inf)
    np.minimum.at(nearest, i, distance / (covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]]))
    return float(nearest.min()), float(nearest.max())
