"""What the data hold fixed stays where it is in rollouts of the training and in its own simulations, to the last bit."""

from functools import partial

import ase.units
import numpy as np
import pytest
import torch
from helpers.models import needs_compilation
from helpers.slab import LAYER, MOBILE, SLIDING, slab_frames, without_constraints
from helpers.training import Alone, data_module, loss_and_gradient, new_model, paper_outputs, task, trainer
from schnetpack import properties as p
from schnetpack.task import ModelOutput

from spk_dt import properties
from spk_dt.data import TrajectoryWriter
from spk_dt.data.fixed_forces import counted_forces
from spk_dt.dynamics import CompiledPotential, Detached, Full, Kicks, Truncated, rollout
from spk_dt.training import ModelSimulations
from spk_dt.training.labelling import write_labelled
from spk_dt.trajectories.fixed_atoms import mobile_of

GRADIENTS = [Detached(), Full(recompute=False), Full(), Truncated(2)]
FIXED = torch.from_numpy(~MOBILE)


def write(path, *trajectories):
    with TrajectoryWriter(path) as writer:
        for i, frames in enumerate(trajectories):
            writer.add(f"run_{i}", frames, 1.0)
    return path


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    """With true forces on fixed atoms, with masked ones, and without a word of what is fixed."""
    folder = tmp_path_factory.mktemp("slab")
    true = [slab_frames(12, seed=seed) for seed in range(3)]
    masked = [slab_frames(12, seed=seed, masked=True) for seed in range(3)]
    return {
        "true": write(folder / "true.db", *true),
        "masked": write(folder / "masked.db", *masked),
        "bare": write(folder / "bare.db", *map(without_constraints, true)),
    }


def data_of(database, **kwargs):
    module = data_module(database, None, check_data=False, num_val=1, num_test=1, **kwargs)
    module.setup()
    return module


def batch_of(database, **kwargs):
    module = data_of(database, **kwargs)
    torch.manual_seed(0)
    return module, next(iter(module.train_dataloader()))


@pytest.fixture
def batch(databases):
    return batch_of(databases["true"])[1]


class OffModel(torch.nn.Module):
    """What the reference says at each step, and 0.1 eV/Å more."""

    def __init__(self, forces):
        super().__init__()
        self.forces, self.step = forces, 0

    def __call__(self, positions):
        self.step += 1
        return self.forces[:, min(self.step, self.forces.shape[1]) - 1] + 0.1


def test_a_wrong_model_does_not_move_the_slab(databases):
    """With forces off by 0.1 eV/Å; replayed kicks, which used to be the remedy, leave fixed atoms 5e-3 Å off after 14 fs."""
    batch = batch_of(databases["true"], replay_kicks=True, train_window=13, val_window=13, batch_size=1)[1]

    def last(mobile, kicks):
        masses, time_step = batch[p.masses], batch[properties.time_step][0]
        start = batch[p.R], batch[properties.velocities]
        forces = OffModel(batch[properties.window("forces")])
        visited = list(rollout(forces, *start, masses, time_step, 13, Detached(), kicks=kicks, mobile=mobile))
        return (visited[-1].state.positions - batch[p.R]).abs()[:4]

    kicks = Kicks(batch[properties.position_kicks], batch[properties.velocity_kicks])
    assert last(None, kicks).max() > 1e-3
    assert not last(batch[properties.mobile], kicks).any()
    assert not last(batch[properties.mobile], None).any()


@pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)
def test_rollouts_of_the_task_hold_the_mask(batch, gradient):
    trained = task(new_model(), paper_outputs(), gradient=gradient, max_displacement=100.0)
    Alone(trained)
    fixed = FIXED.repeat(len(batch[p.n_atoms]), 1)
    torch.testing.assert_close(batch[properties.mobile], ~fixed)
    for visited in trained.rollout(batch, 6, gradient):
        assert torch.equal(visited.state.positions[fixed], batch[p.R][fixed])
        assert not visited.state.velocities[fixed].any()
    assert (visited.state.positions[~fixed] != batch[p.R][~fixed]).all()
    assert visited.state.forces[fixed].all()  # they are there to be compared


def test_without_the_mask_they_would_move(databases):
    batch = batch_of(databases["bare"])[1]
    trained = task(new_model(), paper_outputs())
    Alone(trained)
    *_, last = trained.rollout(batch, 6)
    assert (last.state.positions != batch[p.R])[FIXED.repeat(len(batch[p.n_atoms]), 1)].all()


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("thermostat", [{}, {"temperature": 900.0, "friction": 0.05}], ids=["NVE", "Langevin"])
def test_not_a_bit_in_a_thousand_steps(databases, precision, thermostat):
    """In simulations of the training, which go on from round to round: wrapped positions, zero with a sign, and all."""
    module, _ = batch_of(databases["true"])
    trained = task(new_model().to(getattr(torch, f"float{precision}")), paper_outputs(), max_displacement=100.0)
    module.train_dataset.transforms.append(partial(cast, getattr(torch, f"float{precision}")))
    simulations = ModelSimulations(n_systems=2, steps=500, time_step=0.1, **thermostat)
    simulations.start(module.train_dataset)
    for system in simulations.systems:
        system[p.R][LAYER[0], 1] = -0.0
    before = [system[p.R].clone() for system in simulations.systems]
    for _ in range(2):
        simulations.start(module.train_dataset)
        states, _ = simulations.run(trained, module.frames, 4)
    for old, system in zip(before, simulations.systems, strict=True):
        assert old[FIXED].numpy().tobytes() == system[p.R][FIXED].numpy().tobytes()
        assert (old != system[p.R])[~FIXED].all()
        assert not system[properties.velocities][FIXED].any()
    for atoms in states:  # and those that are labelled say so
        np.testing.assert_array_equal(mobile_of(atoms), MOBILE)
        assert not atoms.get_velocities()[~MOBILE].any()


def cast(dtype, sample):
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in sample.items()}


def test_temperature_of_what_moves(databases):
    """Langevin dynamics of the training: kB T / 2 for each component that moves."""
    module, _ = batch_of(databases["true"])
    trained = task(new_model(), paper_outputs(), max_displacement=100.0)
    simulations = ModelSimulations(n_systems=8, steps=300, temperature=500.0, friction=0.2)
    for _ in range(2):
        simulations.start(module.train_dataset)
        states, _ = simulations.run(trained, module.frames, 200)
    kelvin = np.mean([2.0 * atoms.get_kinetic_energy() / (MOBILE.sum() * ase.units.kB) for atoms in states])
    assert kelvin == pytest.approx(500.0, rel=0.1)
    assert kelvin * MOBILE.sum() / MOBILE.size < 400.0  # what all degrees of freedom would say


def test_states_with_labels_join_the_training(databases, tmp_path):
    module = data_of(databases["true"])
    module.mix_in(0.5)
    simulations = ModelSimulations(n_systems=1, steps=5)
    simulations.start(module.train_dataset)
    states, _ = simulations.run(task(new_model(), paper_outputs(), max_displacement=100.0), module.frames, 2)
    for atoms, frame in zip(states, slab_frames(1), strict=True):
        atoms.calc = frame.calc
    write_labelled(tmp_path / "round.db", "round", states, module.frames, simulations.inputs(module.frames))
    assert module.add_training_frames(tmp_path / "round.db") == 2
    sample = module._growing[len(module.train_dataset)]
    np.testing.assert_array_equal(sample[properties.mobile], MOBILE)


@pytest.mark.parametrize("gradient", [Full(), Full(recompute=False), Truncated(4)], ids=repr)
def test_gradient_through_time_by_finite_differences(batch, gradient):
    """Of the loss of a rollout, in double precision; forces that push mobile atoms from fixed ones take part."""
    smooth = [ModelOutput("forces", torch.nn.MSELoss(), metrics={})]
    model = new_model()
    trained = task(model, smooth, rollout_length=4, gradient=gradient, first_step_weight=0.0)
    batch = {**batch, properties.time_step: 20.0 * batch[properties.time_step]}  # so that the later steps count
    _, found = loss_and_gradient(trained, batch)
    parameters = [q for q in model.parameters() if q.grad is not None]
    torch.manual_seed(1)
    direction = [torch.randn_like(q) for q in parameters]

    def moved(step):
        with torch.no_grad():
            for q, d in zip(parameters, direction, strict=True):
                q += step * d
        loss = loss_and_gradient(trained, batch)[0]
        with torch.no_grad():
            for q, d in zip(parameters, direction, strict=True):
                q -= step * d
        return loss

    along = float(found @ torch.cat([d.flatten() for d in direction]))
    expected = float(moved(1e-6) - moved(-1e-6)) / 2e-6
    assert along == pytest.approx(expected, rel=1e-5)
    free = {**batch, properties.mobile: torch.ones_like(batch[properties.mobile])}
    _, other = loss_and_gradient(trained, free)
    assert float(other @ torch.cat([d.flatten() for d in direction])) != pytest.approx(expected, rel=1e-3)


def test_models_do_not_see_the_mask(databases):
    """So that a compiled one is the same with and without; `test_compiled` takes half a minute."""
    _, batch = batch_of(databases["masked"])
    inputs = task(new_model(), paper_outputs())._model_inputs(batch)
    assert p.Z in inputs
    assert not {properties.mobile, properties.counted_forces} & set(inputs)


@pytest.mark.slow
@needs_compilation
def test_compiled(batch, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    found = []
    for compile in (False, True):
        model = new_model()
        trained = task(model, paper_outputs(), rollout_length=4, gradient=Full(), compile=compile)
        loss, _ = loss_and_gradient(trained, batch)
        found.append((loss, [torch.zeros_like(q) if q.grad is None else q.grad for q in model.parameters()]))
    assert isinstance(trained._predict, CompiledPotential)
    assert trained._predict.compiled
    torch.testing.assert_close(found[0], found[1])


# --- which forces count


def test_forces_on_fixed_atoms_count_if_the_data_hold_them(databases):
    module, batch = batch_of(databases["true"])
    assert properties.counted_forces not in batch
    assert counted_forces(module.frames) is None


def test_masked_forces_are_left_out_with_a_word(databases, caplog):
    _, batch = batch_of(databases["masked"])
    assert "run_0, run_1, run_2" in caplog.text
    assert "masked" in caplog.text
    torch.testing.assert_close(batch[properties.counted_forces], ~FIXED.repeat(len(batch[p.n_atoms]), 1))


@pytest.mark.parametrize("outputs", ["element", "plain"])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_loss_is_the_mean_over_what_counts(databases, outputs, n_steps):
    """Whatever the data hold for the rest, and equal to the option that leaves out forces on fixed atoms."""
    plain = [ModelOutput("forces", torch.nn.MSELoss(), metrics={})]

    def loss(database, scramble=0.0, **kwargs):
        _, batch = batch_of(databases[database], **kwargs)
        batch = {key: value.clone() for key, value in batch.items()}
        if scramble:
            fixed = FIXED.repeat(len(batch[p.n_atoms]), 1)
            batch["forces"][fixed] += scramble
            batch[properties.window("forces")][fixed.nonzero(as_tuple=True)[0], :, fixed.nonzero(as_tuple=True)[1]] += (
                9.0
            )
        own = plain if outputs == "plain" else paper_outputs()[:1]
        return loss_and_gradient(task(new_model(), own, rollout_length=n_steps), batch)[0]

    masked = loss("masked")
    torch.testing.assert_close(loss("true", fixed_forces=False), masked)
    torch.testing.assert_close(loss("true", scramble=5.0, fixed_forces=False), masked)
    assert abs(loss("true") - masked) > 1e-4 * masked
    assert abs(loss("true", scramble=5.0) - masked) > 0.1 * masked


def test_loss_by_hand(databases):
    _, batch = batch_of(databases["masked"])
    model = new_model()
    trained = task(model, paper_outputs()[:1])
    found, _ = loss_and_gradient(trained, batch)
    forces = next(iter(trained.rollout(batch, 1))).state.forces
    off = (forces - batch["forces"]).abs()
    counted = batch[properties.counted_forces]
    copper, oxygen = (off[counted & (batch[p.Z] == z)[:, None]].mean() for z in (29, 8))
    torch.testing.assert_close(found, (copper + oxygen).detach())


@pytest.mark.parametrize("database", ["true", "masked"])
def test_training_with_validation_and_metrics(databases, database, tmp_path):
    module = data_module(databases[database], tmp_path, num_val=1, num_test=1, train_window=3)
    trained = task(new_model(), paper_outputs(), rollout_length=3)
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(trained, datamodule=module)
    assert 0.0 < float(runner.callback_metrics["val_loss"]) < 100.0
    assert float(runner.callback_metrics["val_forces_mae_O"]) > 0.0


def test_simulations_of_an_older_checkpoint_go_on(databases):
    module, _ = batch_of(databases["bare"])
    simulations = ModelSimulations(n_systems=1, steps=2)
    simulations.start(module.train_dataset)
    state = simulations.state_dict()
    for system in state["systems"]:
        del system[properties.mobile]
    continued = ModelSimulations(n_systems=1, steps=2)
    continued.load_state_dict(state)
    states, _ = continued.run(task(new_model(), paper_outputs(), max_displacement=100.0), module.frames, 1)
    assert mobile_of(states[0]).all()


def test_one_component_is_not_the_atom(batch):
    trained = task(new_model(), paper_outputs(), max_displacement=100.0)
    Alone(trained)
    *_, last = trained.rollout(batch, 3)
    moved = (last.state.positions - batch[p.R])[SLIDING]
    assert moved[:2].all()
    assert moved[2] == 0.0
