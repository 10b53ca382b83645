"""Every experiment composes, and trains through SchNetPack's own program."""

from pathlib import Path

import ase.units
import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from helpers.programs import GROWS, SHORT_TRAINING, TINY, composed, metrics, spktrain
from hydra.utils import instantiate
from omegaconf import OmegaConf

from spk_dt.data import TrajectoryWriter

CONFIGS = Path(__file__).parents[1] / "configs"
NEED_A_MODEL = {"dt_finetune", "dt_last", "dt_on_policy", "dt_visits"}  # they have tests of their own
SHARED = {"dt_base", "dt_small"}  # by experiments, but none themselves
EXPERIMENTS = sorted({path.stem for path in (CONFIGS / "experiment").glob("*.yaml")} - SHARED - NEED_A_MODEL)
PAIRS = [(name.replace("static", "dt", 1), name) for name in EXPERIMENTS if name.startswith("static")]
SHORT = [*SHORT_TRAINING, *TINY, *GROWS]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_trains_two_epochs(experiment, request, tmp_path, monkeypatch):
    data = request.getfixturevalue("embedded" if "egnn" in experiment else "database")  # smaller: seconds less
    with_rollouts = ["~callbacks.on_policy"] if experiment == "dt_egnn" else []  # with labels: test_last_stage.py
    spktrain(tmp_path, monkeypatch, f"experiment={experiment}", f"data.datapath={data}", *SHORT, *with_rollouts)
    rows = metrics(tmp_path)
    lengths = [row["S"] for row in rows if "S" in row]
    assert lengths == ([1.0] if experiment.startswith("static") else [1.0, 2.0])
    assert all(row["val_loss"] > 0.0 for row in rows if "val_loss" in row)
    model = torch.load(tmp_path / "best_model", weights_only=False)
    assert model.do_postprocessing
    assert len(model.postprocessors) == 2
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_documented_experiments_exist():
    architectures = ("egnn", "painn", "schnet", "so3net", "field_schnet")
    documented = {f"{kind}_{name}" for kind in ("dt", "static") for name in architectures} | {"dt_egnn_paper"}
    assert documented <= set(EXPERIMENTS)


def test_paper_hyperparameters():
    """The values of the authors' released code."""
    config = composed("experiment=dt_egnn_paper")
    model, task, scheduler = config.model.representation, config.task, config.task.scheduler_args
    assert (model.n_atom_basis, model.n_interactions, model.radial_basis.n_rbf, model.radial_basis.sigma) == (
        *(128, 3, 512),
        4.0,
    )
    assert config.globals.cutoff == 5.0
    assert not model.coordinate_channel
    assert (task.optimizer_cls, task.optimizer_args.lr) == ("torch.optim.Adam", 1e-3)
    assert (scheduler.factor, scheduler.patience, scheduler.min_lr) == (0.33, 15, 2e-6)
    assert config.callbacks.curriculum.reset_lr == 1e-4
    assert config.callbacks.curriculum.max_length == config.data.train_window == 20
    assert config.data.val_window == 120
    assert (config.data.batch_size, config.data.max_train_windows, config.data.max_val_windows) == (32, 256, 256)
    assert (task.first_step_weight, task.step_weight, task.rollout_outputs) == (50.0, 1.0, None)
    assert task.gradient._target_ == "spk_dt.dynamics.Detached"
    assert config.trainer.gradient_clip_val == 1.0


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_control_differs_in_nothing_but_rollouts_and_labels(pair):
    dynamic, static = (OmegaConf.to_container(composed(f"experiment={name}")) for name in pair)
    assert dynamic["callbacks"].pop("on_policy")["_target_"] == "spk_dt.training.LastStage"
    assert static["globals"].pop("max_rollout_length") == 1
    assert dynamic["globals"].pop("max_rollout_length") > 1
    assert (dynamic["run"].pop("experiment"), static["run"].pop("experiment")) == pair
    for group in ("globals", "model", "data", "task", "trainer", "callbacks"):
        assert dynamic[group] == static[group], group


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("task/gradient=full", "Full"),
        ("task/gradient=truncated", "Truncated"),
        ("task/gradient=detached", "Detached"),
    ],
)
def test_gradient_modes(override, expected):
    assert type(instantiate(composed("experiment=dt_egnn", override).task.gradient)).__name__ == expected


@pytest.mark.parametrize("basis", ["gaussian", "bessel", "random_fourier"])
@pytest.mark.parametrize("cutoff_fn", ["cosine", "mollifier"])
@pytest.mark.parametrize("channel", ["true", "false"])
def test_model_choices(basis, cutoff_fn, channel):
    config = composed(
        "experiment=dt_egnn", f"model/representation/radial_basis={basis}",
        f"model/representation/cutoff_fn={cutoff_fn}", f"model.representation.coordinate_channel={channel}",
    )  # fmt: skip
    model = instantiate(config.model.representation)
    assert len(model.coordinates) == (3 if channel == "true" else 0)


def test_a_users_own_database(database, tmp_path, monkeypatch):
    """Given by a relative path; with another representation in the place of that of the experiment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.db").write_bytes(database.read_bytes())
    own = ["data=trajectory", "data.datapath=mine.db", "task/gradient=full", "trainer.limit_train_batches=2"]
    other = ["model/representation=painn", "model/representation/radial_basis=gaussian", "data.val_batch_size=2"]
    spktrain(tmp_path, monkeypatch, "experiment=dt_egnn", *SHORT, *other, *own)
    assert [row["S"] for row in metrics(tmp_path) if "S" in row] == [1.0, 2.0]
    assert type(torch.load(tmp_path / "best_model", weights_only=False).representation).__name__ == "PaiNN"


@pytest.fixture
def all_kinds(tmp_path, cluster, crystal, make_trajectory):
    """Different molecules, cells, time steps and thinnings; one trajectory with a thermostat."""
    atoms = crystal.copy()
    atoms.calc = EMT()
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.03, size=(len(atoms), 3)))
    bath = {"temperature_K": 600.0, "friction": 0.02 / ase.units.fs, "rng": np.random.default_rng(1), "fixcm": False}
    thermostatted = []
    for _ in Langevin(atoms, 1.0 * ase.units.fs, **bath).irun(40):
        frame = atoms.copy()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        frame.calc = SinglePointCalculator(frame, **results)
        thermostatted.append(frame)
    with TrajectoryWriter(tmp_path / "mixed.db") as writer:
        writer.add("cluster", make_trajectory(cluster, 30, 0.5, 0), timestep_fs=0.5)
        writer.add("thinned", make_trajectory(cluster, 60, 0.5, 1)[::2], timestep_fs=1.0, inner_steps=2)
        writer.add("langevin", thermostatted, timestep_fs=1.0)
        writer.add("larger", make_trajectory(crystal.repeat((2, 1, 1)), 30, 0.25, 2), timestep_fs=0.25)
        writer.add("again", make_trajectory(cluster, 30, 0.5, 3), timestep_fs=0.5)
    return tmp_path / "mixed.db"


def test_a_mixed_database_trains_in_one_run(all_kinds, tmp_path, monkeypatch):
    data = ["experiment=dt_egnn", "data=trajectory", f"data.datapath={all_kinds}", "data.num_val=1", "data.num_test=1"]
    with pytest.raises(ValueError, match=r"'langevin'.*data\.replay_kicks=true"):
        spktrain(tmp_path, monkeypatch, *data, *SHORT)
    short = [*SHORT, "data.max_train_windows=60", "data.batch_size=20"]
    run = tmp_path / "run"
    run.mkdir()
    spktrain(run, monkeypatch, *data, *short, "data.replay_kicks=true")
    assert [row["S"] for row in metrics(run) if "S" in row] == [1.0, 2.0]
    assert all(row["val_loss"] > 0.0 for row in metrics(run) if "val_loss" in row)
