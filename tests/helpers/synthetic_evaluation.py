"""A folder as ``spkdt evaluate`` leaves it, made from reference trajectories and noise instead of models."""

import csv
import json
from pathlib import Path

import ase.data
import ase.io
import h5py
import numpy as np
from ase.db import connect
from schnetpack.units import convert_units

from spk_dt.data.start_frames import start_frames
from spk_dt.trajectories.database import read_trajectories

#: noise of the force in eV/Å and growth rate of the deviation in 1/fs, of each model
MODELS = {"static": (0.15, 0.040), "dt": (0.10, 0.015), "dt_painn": (0.12, 0.020)}


def write_hdf5(path, numbers, masses, positions, velocities, energies, cell, timestep_fs):
    """SchNetPack's file of [n_frames, n_molecules, n_atoms, 3] Å and Å/fs, and [n_frames, n_molecules] eV."""
    n_frames, n_molecules, n_atoms = positions.shape[:3]
    nm, kjmol = convert_units("Ang", "nm"), convert_units("eV", "kJ/mol")
    time = 1e-3  # fs in ps, which is the unit of time that follows from nm, kJ/mol and Dalton
    parts = [
        energies * kjmol,
        (positions * nm).reshape(n_frames, -1),
        (velocities * nm / time).reshape(n_frames, -1),
        np.tile(np.asarray(cell).reshape(-1) * nm, (n_frames, n_molecules)),
        np.zeros((n_frames, 9 * n_molecules)),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset("molecules", data=np.concatenate(parts, axis=1)[:, None].astype(np.float32))
        data.attrs.update(
            n_replicas=1,
            n_molecules=n_molecules,
            total_n_atoms=n_molecules * n_atoms,
            n_atoms=np.full(n_molecules, n_atoms),
            atom_types=np.tile(numbers, n_molecules),
            masses=np.tile(masses, n_molecules),
            pbc=np.zeros((n_molecules, 3), dtype=bool),
            has_cells=True,
            has_velocities=True,
            time_step=timestep_fs * time,
            every_n_steps=1,
            entries=n_frames,
        )
        forces = np.zeros((n_frames, 3 * n_molecules * n_atoms))
        properties = file.create_dataset("properties", data=np.concatenate([energies, forces], axis=1)[:, None])
        properties.attrs["shapes"] = json.dumps({"energy": [n_molecules], "forces": [n_molecules * n_atoms, 3]})
        positions = {"energy": [0, n_molecules], "forces": [n_molecules, (1 + 3 * n_atoms) * n_molecules]}
        properties.attrs["positions"] = json.dumps(positions)
        file["start/energy"], file["start/forces"] = energies[0], forces[0].reshape(-1, 3)
        file.attrs["exploded_step"] = np.full(n_molecules, -1)


def make_evaluation(folder: Path, data: Path, split: str, long_steps: int = 0, models=MODELS, run=None) -> Path:
    """The folder; simulations have the length of the reference, or `long_steps`, with true errors every tenth of it."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    database = connect(data)
    members = set(database.metadata["splits"][split][0])
    trajectories = [t for t in read_trajectories(database.metadata, str(data)) if t.start in members]
    frames = [[database.get(i + 1) for i in t.frames] for t in trajectories]
    first = frames[0][0]
    timestep = trajectories[0].timestep_fs
    length = min(t.length for t in trajectories)
    steps = max(long_steps, length - 1)
    reference = np.array([[f.positions for f in part[:length]] for part in frames])
    velocities = np.array([[f.data["velocities"] for f in part[:length]] for part in frames])
    potential = np.array([[f.data["energy"][0] for f in part[:length]] for part in frames])
    kept = np.minimum(np.arange(1, steps + 1), length - 1)  # the last frame stays, with noise
    elements = sorted(set(first.symbols))
    symbols = np.array(first.symbols)

    along, by_start, true, metrics = [], [], [], {}
    for model, (noise, rate) in models.items():
        shape = (len(frames), steps, len(symbols), 3)
        grown = np.minimum(0.02 * np.exp(rate * timestep * np.arange(1, steps + 1)), 0.4)[None, :, None, None]
        deviation = (
            grown * np.sin(np.linspace(0, 9, steps))[None, :, None, None] * rng.normal(size=(shape[0], 1, *shape[2:]))
        )
        write_hdf5(
            folder / model / "simulation_0.hdf5",
            first.numbers,
            np.asarray(ase.data.atomic_masses)[first.numbers],
            np.moveaxis(reference[:, kept] + deviation, 0, 1),
            np.moveaxis(velocities[:, kept], 0, 1),
            potential[:, kept].T + 1e-3 * rate * np.arange(steps)[:, None] * rng.uniform(0.5, 1.5, len(frames)),
            first.cell,
            timestep,
        )
        metrics[model] = {
            "along_reference": {"mean_over_steps": {}},
            "stability": {"exploded": 0, "mean_time_fs": steps * timestep},
            "true_error": {"energy": {"mae_mev_per_atom": 100.0 * noise, "largest_mev_per_atom": 300.0 * noise}},
        }
        for i, element in enumerate(elements):
            base = noise * (1 + 0.5 * i)
            curve = base + 0.8 * (1 - np.exp(-rate * timestep * np.arange(length) / 2)) * (1 + i)
            starts = curve * rng.uniform(0.7, 1.3, (len(frames), 1)) * rng.uniform(0.9, 1.1, (len(frames), length))
            for k in range(length):
                row = {"model": model, "step": k, "time_fs": k * timestep, "element": element}
                along.append(row | {"mae": starts[:, k].mean(), "std": starts[:, k].std()})
                by_start.extend({"model": model, "start": s, **row, "mae": starts[s, k]} for s in range(len(frames)))
            for k in np.linspace(0, steps, 21).astype(int):
                value = base * (1 + 0.3 * rng.uniform() + 2 * rate * k / steps)
                row = {"model": model, "step": k, "time_fs": k * timestep, "element": element}
                true.append(row | {"mae": value, "std": 0.2 * value})
            metrics[model]["along_reference"]["mean_over_steps"][element] = float(starts.mean())

    def table(name, rows):
        with (folder / name).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    table("force_error.csv", along)
    table("force_error_by_start.csv", by_start)
    table("true_error.csv", true)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    r = np.linspace(0.5, 8.0, 200)
    names = ["reference", *models]
    (folder / "distributions.json").write_text(
        json.dumps(
            {
                "h_of_r": {
                    m: {"r": r.tolist(), "h": (np.exp(-((r - 4 - 0.1 * i) ** 2))).tolist()} for i, m in enumerate(names)
                },
                "rdf": {
                    pair: {
                        m: {"r": r.tolist(), "g": (1 + np.sin(3 * r + 0.1 * i) * np.exp(-r / 3)).tolist()}
                        for i, m in enumerate(names)
                    }
                    for pair in ("H-H", "H-Pd")
                },
            }
        )
    )
    ase.io.write(folder / "start.traj", start_frames(data, split))
    settings = {
        "data": str(data),
        "split": split,
        "steps": steps,
        "models": {m: str(run / "best_model") if run and m == "dt" else f"/nowhere/{m}/best_model" for m in models},
        "energy_unit": "eV",
        "distance_unit": "Ang",
        "starts": [
            {
                "trajectory": t.name,
                "frame": 0,
                "group": 0,
                "molecule": i,
                "timestep_fs": timestep,
                "reference_steps": length - 1,
                "inner_steps": 1,
            }
            for i, t in enumerate(trajectories)
        ],
        "versions": {"spk_dt": "0.1.0", "schnetpack": "2.2.0", "torch": "2.15.0"},
        "command": ["spkdt", "evaluate", str(data), *models],
        "elements": elements,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder
