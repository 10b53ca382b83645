# %% [markdown]
# # Labels where the model goes, and a certificate
#
# A small EGNN that is wrong somewhere is certified, hardened with labels of the reference method, and certified again.
# Beside it the same model is trained on for the same time without labels: what that gains needs no labels. Data are the
# embedded ones (H2 on Pd6/graphene), whose reference method, GFN1-xTB, computes a label in half a second. Ten minutes of two
# idle cores, with settings that are smaller than one would take: few simulations, of 1 ps.
#
#     pip install 'spk_dt[reference]'
#     python labels_and_certificate.py     # SPK_DT_TUTORIAL=short: some seconds of each step, as in the tests

# %%
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from matplotlib import pyplot as plt
from schnetpack.data import ASEAtomsData

from spk_dt.certificate.certify import Computing, certify
from spk_dt.certificate.conditions import Conditions
from spk_dt.certificate.criteria import Criteria
from spk_dt.certificate.verdict import closest_pair
from spk_dt.evaluation.certificates import read_certificate, survival_of

SHORT = os.environ.get("SPK_DT_TUTORIAL") == "short"
TIME, STATES, NUMBER, CHECKS = (0.02, 4, 2, 0) if SHORT else (1.0, 20, 10, 1)  # ps; of each simulation; simulations
SECONDS = 60 if SHORT else 150  # of the processor, for hardening and for its control


def start(*command, **environment):
    """Starts a program of this environment, as in a shell."""
    print("\n$", *command, flush=True)
    return subprocess.Popen([Path(sys.executable).with_name(command[0]), *command[1:]], env=os.environ | environment)


def end(process, codes=(0,)):
    """Waits for it."""
    assert process.wait() in codes, process.returncode


# %% [markdown]
# ## A model
#
# Conventional training, twelve epochs of single frames. It has not converged, which a certificate is there to find out.

# %%
QUIET = ["+seed=0", "print_config=false", "+trainer.enable_progress_bar=false"]
FEW = (
    ["trainer.limit_train_batches=3", "data.max_val_windows=1", "data.max_test_windows=1", "trainer.max_epochs=1"]
    if SHORT
    else []
)
SMALL = ["model.representation.n_atom_basis=4"] if SHORT else ["trainer.max_epochs=12"]
end(start("spktrain", "experiment=static_egnn", "run.id=static", *QUIET, *FEW, *SMALL))

# %% [markdown]
# ## For how long is it right?
#
# The error of forces at frames of the data does not tell. The certificate simulates from frames of trajectories that were
# not trained on, and the reference method judges some states of each simulation: its start and its end, those with the
# closest contact, the largest force and what is newest to the model, and here one between. A state is wrong if the energy
# since the start is off by more than three thermal fluctuations, or the force on an atom by more than twice the thermal
# force on its element.
# Compiling is worth its time for longer simulations only, so `--no-compile`; and 1 fs, twice the time step of the data, is
# short enough for this molecule to keep its energy, which the certificate looks at as well.

# %%
certificate = start(
    "spkdt", "certify", "static=runs/static", "embedded", "--time", f"{TIME}", "--number", f"{NUMBER}",
    "--states", f"{STATES}", "--checks", f"{CHECKS}", "--time-step", "1", "--no-compile", "--out", "before",
)  # fmt: skip
end(certificate, codes=(0, 3))  # 3: simulations have failed

# %% [markdown]
# `before/certificate.json` has all of it, `before/static/first_wrong.traj` the first wrong state of each simulation that
# failed, for `ase gui`. In Python:

# %%
for wrong in read_certificate("before").wrong_states:
    energy, force = (np.nan if one is None else one for one in wrong.deviation)
    i, j, _, ratio = closest_pair(wrong.atoms)
    pair = "-".join(chemical_symbols[wrong.atoms.numbers[k]] for k in (i, j))
    print(
        f"simulation {wrong.simulation}: right at {wrong.right_ps:.2f}, wrong at {wrong.time_ps:.2f} ps ({wrong.reason}): "
        f"energy {energy:.1f}, force {force:.1f} limits; closest contact {pair}, {ratio:.2f} of the radii"
    )

# %% [markdown]
# ## Labels where simulations go wrong
#
# Hardening does such a trial before every second epoch, from frames of the training trajectories: short simulations, the
# reference method as the judge, and all states that were computed for the verdict join the training. `callbacks.budget`
# ends it after so many seconds of the processor, simulations and labels included. The control is the same command without
# the labels (`'~callbacks.on_policy'`): the same model, the same seconds, all of them for the data. Both run side by side,
# with a thread each.

# %%
common = ["experiment=dt_last", "model_file=runs/static", f"callbacks.budget.seconds={SECONDS}", *QUIET, *FEW]
control = start("spktrain", *common, "run.id=control", "~callbacks.on_policy", OMP_NUM_THREADS="1")
hardened = start(
    "spktrain", *common, "run.id=hardened", f"callbacks.on_policy.goal.until_ps={TIME}",
    f"callbacks.on_policy.goal.begin_ps={TIME / 4}", f"callbacks.on_policy.simulations.interval_ps={TIME / 20}",
    "callbacks.on_policy.simulations.compile=false", OMP_NUM_THREADS="1",
)  # fmt: skip
end(control)
end(hardened)

# %% [markdown]
# `compile=false`, since compiling would take a good part of so short a training. The labels of a round are an ordinary
# trajectory database, of single frames with energies and forces, which other trainings may use as well.

# %%
rounds = sorted(Path("runs/hardened/hardening").glob("round_*.db"))
for database in rounds:
    labels = ASEAtomsData(str(database))
    largest = max(float(np.linalg.norm(labels[k]["forces"], axis=1).max()) for k in range(len(labels)))
    print(f"{database.stem}: {len(labels)} labels, largest force on an atom {largest:.1f} eV/Å")

# %% [markdown]
# ## The certificates
#
# `spkdt certify` is a function with the same arguments; the same call again goes on where it was interrupted, or returns
# what is there. Both models are simulated from the same frames as the first one.

# %%
models = {name: str(Path("runs", name, "best_model").resolve()) for name in ("control", "hardened")}
found = certify(
    models, "embedded", "after", number=NUMBER, conditions=Conditions(TIME, STATES, time_step=1.0),
    criteria=Criteria(n_checks=CHECKS), computing=Computing(compile=False),
)  # fmt: skip
found = {"static": read_certificate("before").models["static"], **found}
for name, record in found.items():
    print(f"{name}: {record['statement']} ({record['labels']} reference calculations)")

figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.0), layout="constrained")
for name, record in found.items():
    curve = survival_of(record)
    time = np.append(curve.time_ps, TIME)
    share, low, high = (100.0 * np.append(values, values[-1]) for values in curve[1:])
    (line,) = left.step(time, share, where="post", linewidth=1.2, label=name)
    left.fill_between(time, low, high, step="post", color=line.get_color(), alpha=0.12, linewidth=0)
    judged = [
        (TIME / STATES * int(k), max(np.nan if value is None else value for value in deviation))
        for outcome in record["outcomes"]
        for k, deviation in outcome["deviations"].items()
    ]
    right.plot(*np.transpose(judged), ".", markersize=5, color=line.get_color(), label=name)
left.set(xlabel="time (ps)", ylabel="simulations not failed (%)", ylim=(0, 103))
right.axhline(1.0, color="black", linewidth=0.8)
right.set(xlabel="time (ps)", ylabel="error of a judged state, in limits", yscale="log")
left.legend(frameon=False)
figure.savefig("labels_and_certificate.png", dpi=90)

# %% [markdown]
# ![survival against time before, after, and of the control; errors of all judged states](figures/labels_and_certificate.png)
#
# Of 10 simulations 7 failed with the model as it was, 7 with its control and 4 after hardening with 78 labels, the first at
# 0.1, 0.1 and 0.4 ps. Ten simulations cannot tell 7 from 4, as the bands show; the times of failure and the states far
# beyond the limits, which the hardened model no longer reaches, point the same way. [Potentials that last](../../lasting.md)
# has the evidence: longer trainings, and a potential that none of 20 simulations of 100 ps has broken.
