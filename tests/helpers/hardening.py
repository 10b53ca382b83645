"""A small training that is hardened: data, a model that is wrong where they have no frame, and the callback."""

from dataclasses import fields

import pytorch_lightning as pl
import torch
from schnetpack.atomistic import Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import CastTo64, MatScipyNeighborList

import spk_dt.labels.reference_process
from helpers.broken_model import Torn
from helpers.pair_potential import CUTOFF, Sum, pair_trajectory, tetrahedron
from helpers.pair_reference import Reference
from helpers.training import data_module, paper_outputs, trainer
from spk_dt.certificate.criteria import Criteria
from spk_dt.data import TrajectoryWriter
from spk_dt.labels.reference_process import Computed
from spk_dt.training import (
    DynamicTrainingTask,
    Hardening,
    HardeningGoal,
    Labelling,
    RoundSchedule,
    TrialSimulations,
)

REFERENCE = "helpers.pair_reference:Reference"

#: Å; no pair of the data is further apart
BEYOND = 2.85

SHORT = {
    "until_ps": 0.2, "begin_ps": 0.1, "n_passing": 4, "max_labels": 60, "n_systems": 2, "interval_ps": 0.025,
    "compile": False, "precision": 64, "time_step": 2.0, "n_labels": 2, "n_checks": 0, "share": 0.8,
    "every_n_epochs": 1, "n_rounds": 100, "kinetic_energy": [2.0, 3.0],
}  # fmt: skip


def write_clusters(path, metadata=None, timestep_fs=1.0):
    """Trajectories of a cluster of four atoms, none of which comes where the models below are wrong."""
    splits = {"train": ["c0", "c1"], "val": ["c2"], "test": ["c3"]}
    with TrajectoryWriter(path, splits, metadata=metadata) as writer:
        for name, seed in {"c0": 0, "c1": 1, "c2": 2, "c3": 4}.items():
            frames = pair_trajectory(tetrahedron(), 40, timestep_fs, seed, kelvin=300.0)
            assert timestep_fs > 1.0 or max(atoms.get_all_distances().max() for atoms in frames) < BEYOND
            writer.add(name, frames, timestep_fs)
    return path


class InThisProcess:
    """Computes in place of a process of the reference method, which takes a second to start."""

    computed = 0
    #: number of calculations after which the training is killed
    until = None

    def __init__(self, *args, **kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    stop = __exit__

    def rest(self):
        pass

    def describe(self):
        return {"calculator": REFERENCE}

    def compute(self, atoms, fresh=True, stress=False):
        if InThisProcess.computed == InThisProcess.until:
            raise KeyboardInterrupt
        InThisProcess.computed += 1
        atoms.calc = Reference()
        return Computed(atoms.get_potential_energy(), atoms.get_forces(), None)


def compute_in_this_process(monkeypatch):
    """Let `InThisProcess` stand in for processes of the reference method."""
    monkeypatch.setattr(spk_dt.labels.reference_process, "ReferenceProcess", InThisProcess)
    monkeypatch.setattr(InThisProcess, "computed", 0)
    monkeypatch.setattr(InThisProcess, "until", None)


def torn(kick=20.0):
    return NeuralNetworkPotential(Torn(BEYOND, kick), [PairwiseDistances()], [Sum("energy"), Forces()])


def hardening(folder, seed=0, cls=Hardening, **kwargs):
    """The callback, with arguments of its groups side by side."""
    torch.manual_seed(seed)
    values = SHORT | {"reference": REFERENCE, "folder": str(folder / "hardening")} | kwargs

    def group(cls):
        return cls(**{one.name: values.pop(one.name) for one in fields(cls) if one.init and one.name in values})

    groups = {"labels": Labelling, "goal": HardeningGoal, "simulations": TrialSimulations, "criteria": Criteria}
    groups["schedule"] = RoundSchedule
    made = {name: group(one) for name, one in groups.items()}
    return cls(**made, **values)


def fit(
    database, folder, *callbacks, model=None, max_epochs=8, ckpt_path=None, seed=0, lr=0.3, train_window=1, **kwargs
):
    """Train; what is left of the arguments is for the trainer."""
    pl.seed_everything(seed)
    task = DynamicTrainingTask(
        torn() if model is None else model, paper_outputs(), optimizer_cls=torch.optim.Adam, optimizer_args={"lr": lr},
    )  # fmt: skip
    data = data_module(
        database, folder, [MatScipyNeighborList(CUTOFF), CastTo64()], train_window=train_window, val_window=4,
        max_val_windows=2, max_test_windows=2, check_data=False,
    )  # fmt: skip
    run = trainer(folder, callbacks=list(callbacks), max_epochs=max_epochs, **kwargs)
    run.fit(task, data, ckpt_path=ckpt_path)
    return run, task


def tear(task):
    """How wrong the model of a training is."""
    return float(task.model.representation.tear.detach())
