"""Config and weights of the code released with Dynamic Training (IZugec/DTEGNN) are taken over, or refused.

Its network is stated anew here, from the paper and the names and shapes of its weights: one-hot elements, a linear
embedding, layers with messages of all pairs within the cutoff, each with frequencies of its own, and
an energy of the sum over atoms.
"""

import io

import ase.build
import numpy as np
import pytest
import torch
from ase.data import atomic_numbers
from helpers.programs import composed
from schnetpack.interfaces import SpkCalculator
from schnetpack.transform import MatScipyNeighborList
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.training.released_settings import OVERRIDES, WITHOUT, read_released_settings
from spk_dt.training.released_weights import convert_weights, read_released_weights

WIDTH, DEPTH, FEATURES, CUTOFF = 8, 2, 6, 3.0
CONFIG = """
cuda: false
seed: 1241232
datapath: somewhere
modelpath: elsewhere
potim: 0.5
atom_types_map:
  0: H
  1: C
  2: Pd
n_epochs: 20
cutoff: 3.0
first_term: 40
N_traj: 5
N_train: 7
N_train_max: 20
N_val: 110
neigh_factor: 1
check_val: 2
Num_train: 250
Num_val: 240
batch_size: 30
batch_size_val: 200
lr: 2.0e-3
lr_decay: 0.3
lr_min: 3.0e-6
lr_reset: 2.0e-4
patience: 14
depth: 2
emb_dim: 8
n_out_features: 1
norm: layer
RFF_dim: 6
RFF_sigma: 2
wandb_logging: true
"""


def weights(seed=0):
    """A state_dict as theirs, random."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return 0.6 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    found = {"emb_in.weight": draw(WIDTH, 3), "emb_in.bias": draw(WIDTH)}
    for i in range(DEPTH):
        for net, n_in in (("mlp_msg", 2 * WIDTH + FEATURES), ("mlp_upd", 2 * WIDTH)):
            for place, columns in ((0, n_in), (3, WIDTH)):
                found[f"convs.{i}.{net}.{place}.weight"] = draw(WIDTH, columns)
                found[f"convs.{i}.{net}.{place}.bias"] = draw(WIDTH)
                found[f"convs.{i}.{net}.{place + 1}.weight"] = 1.0 + draw(WIDTH)
                found[f"convs.{i}.{net}.{place + 1}.bias"] = draw(WIDTH)
        found[f"convs.{i}.RFF.B"] = 2.0 * draw(FEATURES // 2, 1)
    found |= {"pred.0.weight": draw(WIDTH, WIDTH), "pred.0.bias": draw(WIDTH)}
    return found | {"pred.2.weight": draw(1, WIDTH), "pred.2.bias": draw(1)}


def stated_energy(w, positions, atoms, types, one_basis=False, after_readout=False):
    """Energy in words of the paper; all pairs and images by brute force, double precision."""

    def network(name, x):
        for place in (0, 3):
            x = x @ w[f"{name}.{place}.weight"].T + w[f"{name}.{place}.bias"]
            x = x - x.mean(-1, keepdim=True)
            x = x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5)
            x = x * w[f"{name}.{place + 1}.weight"] + w[f"{name}.{place + 1}.bias"]
            x = x * torch.sigmoid(x)
        return x

    one_hot = torch.eye(3, dtype=torch.float64)[types]
    h = one_hot @ w["emb_in.weight"].T + w["emb_in.bias"]
    cell = torch.tensor(atoms.cell.array)
    shifts = [
        torch.tensor([a, b, c], dtype=torch.float64) @ cell for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)
    ]
    for layer in range(DEPTH):
        received = []
        for i in range(len(positions)):
            total = torch.zeros(WIDTH, dtype=torch.float64)
            for j in range(len(positions)):
                for shift in shifts:
                    d = (positions[j] + shift - positions[i]).norm() if i != j or shift.any() else None
                    if d is not None and d <= CUTOFF:
                        phase = w[f"convs.{0 if one_basis else layer}.RFF.B"][:, 0] * d
                        features = torch.cat([h[i], h[j], torch.sin(phase), torch.cos(phase)])
                        total = total + network(f"convs.{layer}.mlp_msg", features[None])[0]
            received.append(total)
        h = h + network(f"convs.{layer}.mlp_upd", torch.cat([h, torch.stack(received)], -1))

    def readout(x):
        return torch.relu(x @ w["pred.0.weight"].T + w["pred.0.bias"]) @ w["pred.2.weight"].T + w["pred.2.bias"]

    return readout(h).sum() if after_readout else readout(h.sum(0)).sum()


@pytest.fixture
def settings(tmp_path):
    file = tmp_path / "config.yml"
    file.write_text(CONFIG)
    return read_released_settings(file)


@pytest.fixture
def atoms():
    found = ase.build.bulk("Pd", cubic=True)
    found.symbols[1], found.symbols[2] = "H", "C"
    found.rattle(0.15, seed=1)
    return found


def ours(model, atoms, tmp_path):
    file = tmp_path / "model"
    torch.save(model, file)
    atoms = atoms.copy()
    atoms.calc = SpkCalculator(str(file), MatScipyNeighborList(cutoff=CUTOFF), energy_unit="eV", dtype=torch.float64)
    return atoms.get_potential_energy(), atoms.get_forces()


def test_energies_and_forces_are_those_of_the_network(settings, atoms, tmp_path):
    w = weights()
    positions = torch.tensor(atoms.positions, requires_grad=True)
    types = [[1, 6, 46].index(z) for z in atoms.numbers]
    energy = stated_energy(w, positions, atoms, types)
    forces = -torch.autograd.grad(energy, positions)[0]
    found, found_forces = ours(convert_weights(w, settings).double(), atoms, tmp_path)
    assert abs(found - energy.item()) < 1e-6 * abs(energy.item())
    np.testing.assert_allclose(found_forces, forces.numpy(), atol=1e-6 * float(forces.abs().max()))
    for other in ({"one_basis": True}, {"after_readout": True}):  # what a careless converter would take it for
        assert abs(found - stated_energy(w, positions, atoms, types, **other).item()) > 1e-3 * abs(energy.item())


def test_other_elements_give_no_energy(settings, atoms, tmp_path):
    atoms.symbols[0] = "O"
    energy, _ = ours(convert_weights(weights(), settings), atoms, tmp_path)
    assert np.isnan(energy)


def test_every_key_is_taken_over_or_named(settings):
    assert set(settings.values) <= set(OVERRIDES) | set(WITHOUT)
    assert not set(OVERRIDES) & set(WITHOUT)
    config = composed("experiment=dt_egnn_paper", "data=trajectory", "data.datapath=x.db", *settings.overrides)
    assert config.globals.max_rollout_length == 7
    assert (config.data.val_window, config.data.max_train_windows, config.data.max_val_windows) == (110, 250, 240)
    assert (config.data.batch_size, config.data.val_batch_size) == (30, 200)
    assert (config.globals.cutoff, config.globals.lr, config.callbacks.curriculum.reset_lr) == (3.0, 2e-3, 2e-4)
    plateau = config.task.scheduler_args
    assert (plateau.factor, plateau.patience, plateau.min_lr) == (0.3, 14, 3e-6)
    assert config.task.first_step_weight == 40
    model = config.model.representation
    assert (model.n_interactions, model.n_atom_basis, model.radial_basis.n_rbf, model.radial_basis.sigma) == (
        2,
        8,
        6,
        2,
    )
    assert (config.seed, config.trainer.max_epochs, config.trainer.accelerator) == (1241232, 20, "cpu")
    assert config.trainer.check_val_every_n_epoch == 2
    assert set(settings.left_out) == set(settings.values) - set(OVERRIDES)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("norm: layer", "norm: batch", "norm: batch"),
        ("RFF_dim: 6", "RFF_dim: null", "RFF_dim: None"),
        ("RFF_dim: 6", "RFF_dim: 7", "RFF_dim: 7"),
        ("n_out_features: 1", "n_out_features: 2", "n_out_features: 2"),
        ("lr: 2.0e-3", "lr: fast", "lr: fast"),
        ("depth: 2", "depth: 2.5", "depth: 2.5"),
        ("depth: 2", "depht: 2", "has depht"),
        ("  1: C", "  1: Q", "no element Q"),
        ("  0: H\n  1: C", "  0: C\n  1: H", "not ordered by atomic number"),
        ("  2: Pd", "  3: Pd", "number its elements from 0"),
        (CONFIG, "run:\n  id: x\n", "no config of the released code"),
        (CONFIG, "a: [", "no YAML file"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(old, new, message, tmp_path):
    file = tmp_path / "config.yml"
    file.write_text(CONFIG.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_released_settings(file)


def test_weights_of_another_config_are_refused(settings):
    w = weights()
    with pytest.raises(ValueError, match=r"lack convs\.1\.RFF\.B"):
        convert_weights({name: value for name, value in w.items() if name != "convs.1.RFF.B"}, settings)
    with pytest.raises(ValueError, match=r"have convs\.2\.RFF\.B"):
        convert_weights({**w, "convs.2.RFF.B": w["convs.1.RFF.B"]}, settings)
    with pytest.raises(ValueError, match=r"emb_in\.weight has the shape \[8, 2\], and by the config \[8, 3\]"):
        convert_weights({**w, "emb_in.weight": w["emb_in.weight"][:, :2]}, settings)
    with pytest.raises(ValueError, match="not finite"):
        convert_weights({**w, "emb_in.bias": w["emb_in.bias"] / 0.0}, settings)


class RunsCode:
    def __reduce__(self):
        return print, ("run",)


def test_files_of_weights(tmp_path, capsys):
    w = weights()
    checkpoint = {
        "epoch": 3,
        "model": {f"module.{name}": value for name, value in w.items()},
        "optimizer": {"state": {}},
    }
    for content in (w, checkpoint):
        torch.save(content, tmp_path / "file")
        assert read_released_weights(tmp_path / "file").keys() == w.keys()
    for content in (torch.nn.Linear(2, 2), RunsCode(), {"epoch": 3}, [1]):
        torch.save(content, tmp_path / "file")
        with pytest.raises(ValueError, match=r"state_dict\(\), 'weights\.pt'"):
            read_released_weights(tmp_path / "file")
    assert capsys.readouterr().out == ""
    (tmp_path / "file").write_bytes(io.BytesIO(b"text").getvalue())
    with pytest.raises(ValueError, match="cannot be read as weights"):
        read_released_weights(tmp_path / "file")


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yml").write_text(CONFIG)
    torch.save(weights(), "weights.pt")
    run = CliRunner().invoke
    result = run(app, ["from-dtegnn", "config.yml"])
    assert result.exit_code == 0
    assert "globals.max_rollout_length=7" in result.output
    assert "neigh_factor: nothing" in result.output
    assert run(app, ["from-dtegnn", "config.yml", "weights.pt"]).exit_code == 1
    for code in (0, 1):  # the second time there is a model already
        result = run(app, ["from-dtegnn", "config.yml", "weights.pt", "--out", "converted"])
        assert result.exit_code == code
    from spk_dt.training.pretrained import describe

    found = describe(tmp_path / "converted")
    assert (found.cutoff, found.energy_unit, found.distance_unit) == (CUTOFF, "eV", "Ang")
    assert atomic_numbers["Pd"] == 46
