"""Numbers that files give: what later versions must find in the files of earlier ones."""

import json
from pathlib import Path

import numpy as np
import torch

from helpers.models import batch_of
from helpers.pair_potential import tetrahedron
from spk_dt.data import TrajectoryDataModule
from spk_dt.evaluation.certificates import read_certificate
from spk_dt.labels.label_file import open_labels
from spk_dt.models import load_model, read_facts
from spk_dt.training.checkpoint import WholeFileIO
from spk_dt.training.same_run import made_with_of
from spk_dt.trajectories.readers import find_reader


def predicted(model, cutoff):
    """Energy and forces of a structure."""
    model.eval()  # a best_model is as training left it
    batch = batch_of(tetrahedron(), radius=cutoff, dtype=torch.float32)
    results = model(batch)
    return {key: results[key].detach().double().flatten().tolist() for key in ("energy", "forces")}


def numbers(folder: Path) -> dict:
    """What the files in a folder of fixtures give."""
    found: dict = {}
    best, plain = load_model(folder / "run" / "best_model"), load_model(folder / "model.safetensors")
    facts = read_facts(folder / "model.safetensors")
    found["best_model"] = predicted(best, facts.cutoff)
    found["safetensors"] = predicted(plain, facts.cutoff)
    found["facts"] = {name: getattr(facts, name) for name in ("energy_unit", "distance_unit", "cutoff", "elements")}
    checkpoint = WholeFileIO().load_checkpoint(folder / "run" / "checkpoints" / "last.ckpt")
    weights = checkpoint["state_dict"]
    found["checkpoint"] = {
        "epoch": checkpoint["epoch"],
        "step": checkpoint["global_step"],
        "weights": sum(float(value.double().abs().sum()) for value in weights.values() if value.is_floating_point()),
        "callbacks": sorted(name.split("{")[0] for name in checkpoint["callbacks"]),
    }
    found["made_with"] = made_with_of(folder / "run" / "best_model")
    module = TrajectoryDataModule(
        str(folder / "data.db"), 2, split_file=str(folder / "run" / "split.npz"), num_val=1, num_test=1
    )
    module.setup()
    values = module.frames.values
    found["database"] = {
        "frames": len(module.frames),
        "train": module.train_idx,
        "sums": {key.strip("_"): float(np.abs(values[key]).sum()) for key in sorted(values)},
        "time_step": [float(step) for step in module.frames.time_step],
    }
    header = json.loads((folder / "labels.jsonl").read_text().splitlines()[0])
    labels = open_labels(folder / "labels.jsonl", header)
    found["labels"] = {name: [one["energy"], *np.ravel(one["forces"]).tolist()] for name, one in labels.items()}
    simulation = folder / "md" / "simulation.hdf5"
    (raw,) = find_reader(simulation).read(simulation)
    frames = list(raw.frames())
    found["simulation"] = {
        "frames": len(frames),
        "time_step": raw.timestep_fs,
        "energies": [float(atoms.get_potential_energy()) for atoms in frames],
        "last": frames[-1].positions.ravel().tolist(),
    }
    state = torch.load(folder / "md" / "checkpoint.chk", weights_only=False)
    found["restart"] = {"step": state["step"], "positions": state["system"]["positions"].double().flatten().tolist()}
    certificate = read_certificate(folder / "certificate")
    found["certificate"] = {"statements": certificate.statements, "method": certificate.method}
    return json.loads(json.dumps(found))
