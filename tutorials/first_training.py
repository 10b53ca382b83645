# %% [markdown]
# # A first training, and what the curriculum does
#
# A small EGNN is trained on the embedded data (H2 on Pd6/graphene): first on single frames (S = 1), then on rollouts of
# two and of three steps. We look at how the error grows along a rollout, and what the longer stages change. Some minutes
# on a laptop; the settings are smaller than those of `experiment=dt_egnn`, so the errors are larger.
#
#     python first_training.py     # SPK_DT_TUTORIAL=short: a few batches, as in the tests

# %%
import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib import pyplot as plt
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, GaussianRBF
from schnetpack.transform import AddOffsets, CastTo32, CastTo64, RemoveOffsets

from spk_dt import EGNN, Curriculum, Detached, DynamicTrainingTask
from spk_dt.data import WindowNeighborList
from spk_dt.data.embedded import H2Pd6Graphene
from spk_dt.training import Elapsed, ElementwiseOutput, PerAtomOutput

SHORT = os.environ.get("SPK_DT_TUTORIAL") == "short"
STEPS = 12 if SHORT else 40  # of the rollouts of the validation


def run(*command):
    """A program of this environment, as in a shell."""
    print("\n$", *command, flush=True)
    subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=True)


# %% [markdown]
# ## The training
#
# `~callbacks.on_policy` leaves out the last stage of this experiment, labels of the reference method, which is the
# subject of another tutorial: rollouts take its place, as in the paper. `+seed=0` makes the run repeatable. The first
# command only tells what the second would cost.

# %%
settings = [
    "experiment=dt_egnn", "run.id=first", "+seed=0", "~callbacks.on_policy", "print_config=false",
    "globals.max_rollout_length=3", "model.representation.n_atom_basis=16", "data.max_val_windows=6",
    f"data.val_window={STEPS}", "callbacks.free_simulations.steps=200", "trainer.limit_train_batches=30",
    "+trainer.enable_progress_bar=false",
]  # fmt: skip
if SHORT:
    settings += [
        "trainer.limit_train_batches=3", "model.representation.n_atom_basis=4", "data.max_val_windows=2",
        "data.max_test_windows=2", "callbacks.free_simulations.steps=5", "data.max_train_windows=40",
        "callbacks.curriculum.rule._target_=spk_dt.training.Elapsed", "+callbacks.curriculum.rule.epochs=1",
    ]  # fmt: skip
    settings.remove("trainer.limit_train_batches=30")
else:
    run("spktrain", *settings, "+dry_run=true")
run("spktrain", *settings)
run("spkdt", "plot", "runs/first")

# %% [markdown]
# The last lines of the training are a table of its stages. `runs/first` has the model (`best_model`), the settings
# (`config.yaml`), which trajectory is in which partition (`split.npz`) and the table of all metrics, which we read. What
# belongs to one epoch may be in several of its rows.

# %%
with (Path("runs/first") / "csv" / "version_0" / "metrics.csv").open(newline="") as stream:
    of_epoch = {}
    for row in csv.DictReader(stream):
        of_epoch.setdefault(row["epoch"], {}).update({key: value for key, value in row.items() if value})
rows = [row for row in of_epoch.values() if "val_loss" in row]
epochs, loss, length = (np.array([float(row[key]) for row in rows]) for key in ("epoch", "val_loss", "S"))
stages = sorted(set(length))
for s in stages:
    print(f"S = {s:.0f}: {int((length == s).sum())} epochs, smallest val_loss {loss[length == s].min():.3f} eV/Å")

# %% [markdown]
# ## What the curriculum does
#
# `val_loss` is the error of *free* rollouts: the model propagates frames of trajectories that it has not seen, and its
# forces are compared with those of the trajectory at the same time. It is the same quantity in all stages, so they can
# be compared. A stage ends when the learning rate has fallen to its floor; then S grows and the learning rate is reset.
#
# Along a rollout the error grows: the model is a little off, so it is a little elsewhere, where the force is another
# one. Step 0 is the error at the frames of the data, all that conventional training looks at.


# %%
def along_rollout(row):
    """Steps of the rollout, some of which are logged, and the errors there."""
    steps = [k for k in range(STEPS) if f"val_forces_mae_step_{k}" in row]
    return np.array(steps), np.array([float(row[f"val_forces_mae_step_{k}"]) for k in steps])


figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.0), layout="constrained")
for s in stages:
    members = np.flatnonzero(length == s)
    left.plot(epochs[members], loss[members], marker="o", markersize=3, linewidth=1, label=f"S = {s:.0f}")
    best = members[loss[members].argmin()]
    steps, errors = along_rollout(rows[best])
    print(f"S = {s:.0f}: error {errors[0]:.3f} eV/Å at the frames, {errors[-1]:.3f} after {steps[-1]} steps")
    right.plot(steps, errors, marker="o", markersize=3, linewidth=1, label=f"best of S = {s:.0f}")
left.set(xlabel="epoch", ylabel="val_loss (eV/Å, sum over H, C, Pd)", yscale="log")
right.set(xlabel="step of the rollout (0.5 fs)", ylabel="force error (eV/Å)")
for axis in (left, right):
    axis.legend(frameon=False)
figure.savefig("first_training.png", dpi=90)

# %% [markdown]
# ![validation loss against epochs, and error along a rollout](figures/first_training.png)
#
# Is it the rollouts that lower the error, or simply more training? The control is the same training with S = 1 for as
# long, which the study of this package makes with care ([results](../../results.md)): along the reference more of
# conventional training does as much. What makes simulations last are labels where the model goes.
#
# ## The same in Python
#
# The settings above are objects. Here they are put together by hand, for an epoch with S = 1 and one with S = 2.

# %%
CUTOFF = 4.0  # Å
data = H2Pd6Graphene(
    "data/h2_pd6_graphene.db",
    batch_size=8,
    train_window=2,
    val_window=10,
    max_train_windows=80,
    max_val_windows=4,
    transforms=[RemoveOffsets("energy", remove_mean=True), WindowNeighborList(CUTOFF), CastTo32()],
    split_file=None,
)
representation = EGNN(
    n_atom_basis=8, n_interactions=2, radial_basis=GaussianRBF(20, CUTOFF), cutoff_fn=CosineCutoff(CUTOFF)
)
model = NeuralNetworkPotential(
    representation,
    input_modules=[PairwiseDistances()],
    output_modules=[Atomwise(8, output_key="energy"), Forces()],
    postprocessors=[CastTo64(), AddOffsets("energy", add_mean=True)],
)
task = DynamicTrainingTask(
    model,
    outputs=[
        ElementwiseOutput("forces", torch.nn.L1Loss(), loss_weight=1.0, metrics={}),
        PerAtomOutput("energy", torch.nn.L1Loss(), loss_weight=1.0, metrics={}),
    ],
    gradient=Detached(),
    optimizer_cls=torch.optim.Adam,
    optimizer_args={"lr": 3e-3},
)
trainer = pl.Trainer(
    callbacks=[Curriculum(max_length=2, rule=Elapsed(epochs=1), reset_lr=None)],
    limit_train_batches=2 if SHORT else None,
    accelerator="cpu",
    inference_mode=False,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(task, data)
print(f"val_loss after two epochs from Python: {float(trainer.callback_metrics['val_loss']):.3f} eV/Å")
