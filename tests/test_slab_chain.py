"""A slab with frozen layers, from the files of VASP to a trained model, simulations, and the report."""

import numpy as np
import pytest
from helpers.programs import spkdt, spkmd, spktrain
from helpers.slab import slab_frames
from helpers.slab_files import vasprun
from schnetpack.md.data import HDF5Loader

from spk_dt.trajectories.fixed_atoms import mobile_of


@pytest.mark.slow
def test_from_vasp_to_the_report(tmp_path, monkeypatch, quiet_hydra):
    files = []
    for i in range(3):
        frames = slab_frames(40, seed=i)
        (tmp_path / f"run{i}").mkdir()
        files.append(tmp_path / f"run{i}" / "vasprun.xml")
        mobile = mobile_of(frames[0])
        vasprun(files[-1], frames, mobile)
    data, out = tmp_path / "slab.db", tmp_path / "evaluation"
    for command in (["convert", *files, data], ["check", data]):
        code, said, error = spkdt(*command)
        assert code == 0, error
    assert said.rstrip().endswith("3 trajectories, 123 frames: ok")

    folder = tmp_path / "run"
    folder.mkdir()
    spktrain(
        folder, monkeypatch, "experiment=dt_egnn", "data=trajectory", f"data.datapath={data}", "data.num_train=1",
        "data.num_val=1", "data.num_test=1", "data.val_window=10", "globals.max_rollout_length=3",
        "model.representation.n_atom_basis=16", "trainer.max_epochs=3", "trainer.accelerator=cpu", "print_config=false",
        "callbacks.curriculum.rule._target_=spk_dt.training.Elapsed", "+callbacks.curriculum.rule.epochs=1",
    )  # fmt: skip
    model = folder / "best_model"
    monkeypatch.chdir(tmp_path)
    for command in (
        ["evaluate", data, f"slab={model}", "--out", out, "--steps", "30"],
        ["report", out],
        ["frames", "start.traj", "--data", data, "--run", folder],
    ):
        code, _, error = spkdt(*command)
        assert code == 0, error
    assert "slab" in (out / "report.html").read_text()
    spkmd(
        f"calculator.model_file={model}",
        "system/initializer=frames",
        "+dynamics/thermostat=langevin",
        steps=1000,
        callbacks="[checkpoint,hdf5]",
    )
    positions = HDF5Loader(str(tmp_path / "out" / "simulation.hdf5")).get_positions()
    assert len(positions) == 1000
    held = ~mobile
    assert held.any()
    assert not held.all()
    assert np.array_equal(positions[:, held], np.broadcast_to(positions[0, held], (1000, held.sum())))
    assert np.abs(np.diff(positions[:, mobile], axis=0)).max() > 0.0
