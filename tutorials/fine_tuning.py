# %% [markdown]
# # Fine-tuning a trained PaiNN
#
# Any `best_model` of SchNetPack can be trained further, with rollouts or on other data. Here a small PaiNN is trained on the
# embedded data (H2 on Pd6/graphene) for a short time, and then fine-tuned twice from the same file, for the same seconds of
# the processor: with rollouts of two steps, and with single frames as before. The second one is the control: what it gains
# is what more training gains. Seven minutes of an idle core.
#
#     pip install 'spk_dt[reference]'
#     python fine_tuning.py      # SPK_DT_TUTORIAL=short: a few batches, as in the tests

# %%
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib import pyplot as plt

from spk_dt import DynamicTrainingTask, Full
from spk_dt.data import WindowNeighborList
from spk_dt.data.embedded import H2Pd6Graphene
from spk_dt.evaluation.results import read_results
from spk_dt.training import ElementwiseOutput, PerAtomOutput
from spk_dt.training.finetune import RemoveModelOffsets, cast_for, pretrained_model

SHORT = os.environ.get("SPK_DT_TUTORIAL") == "short"
SECONDS = 2 if SHORT else 60  # of the processor, for each fine-tuning
STEPS, EVERY = (10, 10) if SHORT else (200, 50)  # of the evaluation; steps between labels of the reference method


def run(*command, makes):
    """A program of this environment, as in a shell, unless what it makes is there: so the script can be run again."""
    print("\n$", *command, flush=True)
    if not Path(makes).exists():
        subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=True)


# %% [markdown]
# ## The model that there is
#
# It stands for one that you have. What was stored beside it is what fine-tuning goes by: units from `config.yaml`, and
# `made_with.json` with cutoff, time step, elements, loss and reference method of its training.

# %%
QUIET = ["+seed=0", "print_config=false", "+trainer.enable_progress_bar=false"]
FEW = ["trainer.limit_train_batches=3", "data.max_val_windows=1", "data.max_test_windows=1"] if SHORT else []
LENGTH = ["trainer.max_epochs=2", *FEW[1:]] if SHORT else ["trainer.max_epochs=6"]
run("spktrain", "experiment=static_painn", "run.id=painn", *QUIET, *LENGTH, makes="runs/painn/best_model")
print(json.dumps(json.loads(Path("runs/painn/made_with.json").read_text()), indent=1))

# %% [markdown]
# ## Fine-tuning, and its control
#
# `experiment=dt_finetune` with nothing else goes through stages of growing S until it has converged, on a learning rate of
# a tenth of that of a new model. To compare, both trainings here have a budget of seconds (`callbacks.budget`), at whose
# end the learning rate is low, and one S. A rollout of two steps with full gradients costs more than twice a frame, so it
# sees fewer frames in that time.

# %%
same = [
    "experiment=dt_finetune", "model_file=runs/painn", "callbacks=[checkpoint,lrmonitor,dt_ema,budget]",
    f"callbacks.budget.seconds={SECONDS}", "callbacks.budget.final_lr=3e-5", "task.scheduler_cls=null",
    "trainer.max_epochs=-1", *QUIET, *FEW,
]  # fmt: skip
for name, length in {"control": 1, "rollouts": 2}.items():
    rollouts = [f"task.rollout_length={length}", f"globals.max_rollout_length={length}"]
    run("spktrain", *same, *rollouts, f"run.id={name}", makes=f"runs/{name}/best_model")

# %% [markdown]
# The test at the end of each training is the same: the model runs freely for 60 steps from frames of trajectories that
# were not trained on. Step 0 is the error at the frames themselves.

# %%
RUNS = {"before": "painn", "control": "control", "rollouts": "rollouts"}
for name, folder in RUNS.items():
    with (Path("runs") / folder / "csv" / "version_0" / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    tested = {key: float(value) for row in rows for key, value in row.items() if key.startswith("test_") and value}
    frames = [float(row["train_frames"]) for row in rows if row.get("train_frames")]
    seen = f", {frames[-1]:.0f} frames trained on" if frames else ""
    last = max(int(key.rpartition("_")[2]) for key in tested if "_step_" in key)
    print(
        f"{name}: test error of forces {tested['test_forces_mae_step_0']:.3f} eV/Å at the frames, "
        f"{tested[f'test_forces_mae_step_{last}']:.3f} after {last} steps{seen}"
    )

# %% [markdown]
# ## Judged by the reference method
#
# Errors along the trajectories grow because two trajectories come apart, whatever the model. So the three models simulate,
# and GFN1-xTB computes what is right *where they are* (`--reference`).

# %%
models = [f"{name}=runs/{folder}" for name, folder in RUNS.items()]
run(
    "spkdt", "evaluate", "embedded", *models, "--steps", f"{STEPS}", "--number", "1" if SHORT else "4",
    "--reference", "tblite:GFN1-xTB", "--relabel-every", f"{EVERY}", "--precision", "32", "--out", "evaluation",
    makes="evaluation/true_error.csv",
)  # fmt: skip


results = read_results("evaluation")
figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.0), layout="constrained")
kinds = {"along the reference": results.along_reference, "where the model is": results.true_errors}
for axis, (kind, found) in zip(axes, kinds.items(), strict=True):
    for name, of_element in found.items():
        time = next(iter(of_element.values())).time_fs
        mean = np.mean([one.mae for one in of_element.values()], axis=0)
        print(f"error {kind}, {name}: {mean[0]:.3f} eV/Å at {time[0]:.0f} fs, {mean[-1]:.3f} at {time[-1]:.0f} fs")
        axis.plot(time, mean, linewidth=1.2, marker="o" if len(time) < 20 else None, markersize=4, label=name)
    axis.set(xlabel="time (fs)", ylabel="force error (eV/Å)", title=kind)
axes[0].legend(frameon=False)
figure.savefig("fine_tuning.png", dpi=90)

# %% [markdown]
# ![force errors against time before fine-tuning, after it, and of the control](figures/fine_tuning.png)
#
# Both trainings helped, and the same: where the models are after 100 fs, the error fell from 0.119 eV/Å to 0.098 with
# single frames and 0.091 with rollouts. At the frames themselves single frames gained more (0.173 to 0.150 eV/Å, summed
# over H, C and Pd; 0.157 with rollouts, which saw 3,792 instead of 5,128 frames), as they did in the free runs of 59
# steps (0.372 to 0.295 and 0.341). Without the control, all of it would seem to be due to the rollouts. What does make
# simulations last are [labels where the model goes](labels_and_certificate.md).
#
# ## The same in Python, with frozen parts
#
# What the experiment is made of are functions of `spk_dt.training.finetune`. Cutoff, offsets of the energies and precision
# come from the file. `freeze` takes names of modules, with wildcards, as does `'freeze=[...]'` on the command line.

# %%
FILE, CUTOFF = "runs/painn/best_model", 4.0  # Å
model = pretrained_model(
    FILE, CUTOFF, "eV", "Ang", freeze=["representation.embedding", "representation.interactions.0"]
)
before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
data = H2Pd6Graphene(
    "data/h2_pd6_graphene.db",
    batch_size=8,
    train_window=2,
    val_window=10,
    max_train_windows=80,
    max_val_windows=4,
    transforms=[RemoveModelOffsets(FILE), WindowNeighborList(CUTOFF), cast_for(FILE)],
    split_file=None,
)
task = DynamicTrainingTask(
    model,
    outputs=[
        ElementwiseOutput("forces", torch.nn.L1Loss(), loss_weight=1.0, metrics={}),
        PerAtomOutput("energy", torch.nn.L1Loss(), loss_weight=1.0, metrics={}),
    ],
    gradient=Full(),
    rollout_length=2,
    optimizer_cls=torch.optim.Adam,
    optimizer_args={"lr": 3e-4},
)
trainer = pl.Trainer(
    max_epochs=1,
    limit_train_batches=2 if SHORT else None,
    accelerator="cpu",
    inference_mode=False,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(task, data)
changed = sum(bool((before[name] != parameter).any()) for name, parameter in model.named_parameters())
frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
assert all((before[name] == dict(model.named_parameters())[name]).all() for name in frozen)
print(f"{changed} of {len(before)} parameters have changed; {len(frozen)} are frozen and have not")

# %% [markdown]
# ## Other data
#
# `data=trajectory data.datapath=my_aimd.db` fine-tunes on your own trajectories. What does not fit the model, another time
# step, new elements, another reference method, is refused with both values unless `may_differ` names it, and the constant by
# which energies of another method differ is taken care of: [fine-tuning](../../fine_tuning.md).
