"""The benchmarks run and print tables; what they measure is not tested, nobody's clock is fast enough."""

import os
import re

import pytest
from typer.testing import CliRunner

pytest.importorskip("benchmarks.commands")  # not part of the wheel

import torch

from benchmarks import loading, memory, points, report_page, scaling, settings, simulation, training_step, validation
from benchmarks.commands import app
from benchmarks.models import MODELS, LightningSteps, composed, data_of, task_of
from benchmarks.systems import batch_of, windows_of
from benchmarks.timing import alternate, quartiles, ratio

TINY = (
    "model.representation.n_atom_basis=8", "model.representation.n_interactions=1", "globals.cutoff=2.5",
    "model.representation.radial_basis.n_rbf=8",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _small(monkeypatch, embedded):
    """Data of the session, and no new processes."""
    monkeypatch.setattr("benchmarks.models.datapath", lambda: str(embedded))
    for module in (memory, scaling):
        monkeypatch.setattr(module, "in_process", lambda function, *args: function(*args))


@pytest.fixture
def tiny():
    return settings.Settings(overrides=TINY, quick=True, n_systems=2)


def rows(text):
    """Cells of the lines of a Markdown table, without its header."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def numbers(cells):
    return all(re.match(r"^[\d.,]+", cell) for cell in cells)


def test_training_step(tiny):
    also = ["task/gradient=full task.gradient.recompute=false"]
    modes = ("detached", "truncated(k=4)")
    found = rows(training_step.run(tiny, (2,), ("EGNN",), modes, also))
    assert [row[1] for row in found] == [f"EGNN, {name}" for name in (*modes, *also)]
    assert all(row[0] == "2" for row in found)
    assert all(numbers(row[2:3]) for row in found)


def test_training_step_of_another_model(tiny):
    found = rows(training_step.run(tiny, (1,), ("SchNet",)))
    assert [row[1] for row in found] == ["SchNet, detached", "SchNet, stock task"]


def test_validation(tiny):
    assert numbers(rows(validation.run(tiny, (2,), 3))[0][2:4])


def test_md(tiny):
    found = rows(simulation.run(tiny, (1, 2), 2))
    assert [row[1] for row in found] == ["verlet (default)", "NeighborListMD"] * 2
    assert all(sum(float(cell.strip("%")) for cell in row[3:6]) == pytest.approx(100.0, abs=2.0) for row in found)


def test_scaling(tiny):
    small, large = rows(scaling.run(tiny, ((1, 1), (2, 1))))
    assert (small[0], large[0]) == ("39", "78")
    assert int(large[1]) == 2 * int(small[1])  # edges


def test_what_does_not_fit_is_not_measured(tiny, monkeypatch):
    answers = iter([True, True, False, False])  # forces and training of the first size, and of the second
    monkeypatch.setattr(scaling, "fits", lambda needed, device: next(answers))
    assert "does not fit here" in scaling.run(tiny, ((1, 1), (2, 1))).splitlines()[-1]


def test_memory(tiny):
    found = rows(memory.run(tiny, (1, 2), ("detached",)))
    assert [row[:2] for row in found] == [["EGNN, detached", "1"], ["EGNN, detached", "2"]]


def test_loading(tiny):
    mapped = tiny.with_overrides("data.max_memory_gb=0")  # read once for all tests
    assert numbers(rows(loading.run(mapped, (1,), (0,), 4))[0])


def test_all(tiny, tmp_path):
    report_page.run(
        tiny, tmp_path / "out.md", {"training-step": lambda settings: "a table", "md": lambda settings: "another"}
    )
    text = (tmp_path / "out.md").read_text()
    for word in ("# Benchmarks", "## training-step", "a table", "## md", "threads", "torch", "date"):
        assert word in text


def test_command_line():
    result = CliRunner().invoke(app, ["--quick", *[f"--override={text}" for text in TINY], "validation", "--help"])
    assert result.exit_code == 0
    assert CliRunner().invoke(app, ["nonsense"]).exit_code != 0


@pytest.mark.slow
def test_points_are_processes():
    assert points.in_process(os.getpid) != os.getpid()
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        points.in_process(divmod, 1, 0)


@pytest.mark.parametrize("model", MODELS)
def test_steps_are_those_of_training(model):
    """A step changes weights, errors in the trainer's thread come out, and the batch stays as it is."""
    config = composed(*TINY, "globals.lr=0.1", model=model)
    datamodule = data_of(config)
    batch = batch_of(datamodule, [0, 1])
    before = {key: value.clone() for key, value in batch.items()}
    task = task_of(config)
    weights = torch.cat([p.detach().flatten().clone() for p in task.parameters()])
    step = LightningSteps(task, datamodule, batch, config)
    step()
    assert not torch.equal(weights, torch.cat([p.detach().flatten() for p in task.parameters()]))
    assert all(torch.equal(before[key], batch[key]) for key in batch)
    task.training_step = lambda batch, batch_idx: 1 / 0
    with pytest.raises(ZeroDivisionError):
        step()


def test_structures_are_those_of_the_batch():
    config = composed(*TINY)
    datamodule = data_of(config)
    batch, windows = batch_of(datamodule, [3]), windows_of(datamodule, [3])
    torch.testing.assert_close(torch.tensor(windows[0][0].positions).float(), batch["_positions"])
    torch.testing.assert_close(torch.tensor(windows[0][2].get_forces()).float(), batch["forces_window"][:, 2])
    per_frame = windows[0][1].positions - windows[0][0].positions  # Å, in 0.5 fs
    assert abs(per_frame - 0.5 * windows[0][0].get_velocities()).max() < 0.1 * abs(per_frame).max()


def test_contenders_take_turns():
    calls = []
    actions = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "ab"}
    times = alternate(actions, 2, warm_up=1)
    assert "".join(calls) == "ababab"
    assert times["a"].tolist() == [3.0, 5.0]
    assert ratio(times["a"], times["a"]) == "1.00 (1.00 to 1.00)"
    assert quartiles([0.5]) == "0.500"


@pytest.mark.skipif(
    "SPK_DT_REFERENCE" not in os.environ, reason="SPK_DT_REFERENCE names no clone of the reference code"
)
def test_reference_code(tiny):
    """It is the same function as ours, and every command measures it."""
    both = settings.Settings(overrides=TINY, quick=True, n_systems=2, reference=os.environ["SPK_DT_REFERENCE"])
    text = training_step.run(both, (1, 2), ("EGNN",), ("detached",))
    assert "Same function" in text
    assert [row[1] for row in rows(text)] == ["EGNN, detached", "reference code"] * 2
    assert rows(validation.run(both, (2,), 3))[1][1] == "reference code"
    assert rows(simulation.run(both, (2,), 2))[-1][1] == "reference code"
    assert rows(memory.run(both, (1,), ()))[0][0] == "reference code"
