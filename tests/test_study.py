"""The study: its runs compose, its numbers are what they are said to be; the runs themselves take hours."""

import json

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from models import potential, tiny_egnn
from test_experiments import composed

pytest.importorskip("benchmarks.study.arms")  # not part of the wheel

from benchmarks.study.arms import ARMS, FEW_LENGTH, MODELS
from benchmarks.study.displaced import DisplacedFrames
from benchmarks.study.measure import LOST, long_run, training
from benchmarks.study.train import Study, overrides
from benchmarks.study.write import write_results
from spk_dt.data import TrajectoryDataModule
from spk_dt.training import Stage


@pytest.fixture
def study(tmp_path):
    for model in MODELS:
        folder = Study(tmp_path).run(model, "start", 0)
        folder.mkdir(parents=True)
        torch.save(potential(tiny_egnn()), folder / "best_model")
    return Study(tmp_path, seconds=60.0)


@pytest.mark.parametrize("arm", ["start", *ARMS])
def test_arms_compose(study, arm):
    config = composed(*overrides(study, "painn", arm, 0))
    assert config.callbacks.budget.seconds == (120.0 if arm != "start" and ARMS[arm].scratch else 60.0)
    assert config.task.scheduler_cls is None
    length = 1 if arm == "start" else ARMS[arm].length
    assert config.callbacks.curriculum.max_length == config.callbacks.curriculum.rule.max_length == length
    assert config.data.train_window == length >= config.task.rollout_length
    rule = instantiate(config.callbacks.curriculum.rule)
    used = [
        share
        for share in np.linspace(0.01, 1.0, 100)
        if rule.over(Stage(config.task.rollout_length, 1, 1.0, 0.0, share))
    ]
    assert bool(used) == (length > config.task.rollout_length)
    assert not used or used[0] >= (0.5 if arm == "full16_late" else 0.0)
    labels = None if arm == "start" else ARMS[arm].labels
    assert ("visits" in config.callbacks) == (labels is not None)
    if labels == "displaced":
        assert config.callbacks.visits._target_.endswith("DisplacedFrames")


def test_arms_differ_from_the_control_in_what_they_say(study):
    """Data, validation, learning rate and budget are the same in all."""
    control = composed(*overrides(study, "egnn", "control", 0))
    for arm in (name for name, one in ARMS.items() if not one.scratch):
        config = composed(*overrides(study, "egnn", arm, 0))
        assert config.model == control.model
        assert config.trainer == control.trainer
        assert config.callbacks.budget == control.callbacks.budget
        assert config.task.optimizer_args == control.task.optimizer_args
        differing = {key for key in config.data if config.data[key] != control.data[key]}
        assert differing <= {"train_window"}


def test_few_windows(tmp_path, database):
    """The control on all frames of the windows sees what the rollouts are compared with, and nothing else."""
    study = Study(tmp_path / "study", windows=3)
    study.folder.mkdir()
    study.database.write_bytes(database.read_bytes())
    study.prepare()
    frames = np.load(study.split_file)["train_idx"]
    with_windows = instantiate(composed(*_data(study, "full16")).data)
    with_windows.setup()
    starts = with_windows.train_dataset.starts
    assert len(starts) == 3
    assert set(frames) == {start + k for start in starts for k in range(FEW_LENGTH)}
    on_frames = instantiate(composed(*_data(study, "frames")).data)
    on_frames.setup()
    assert sorted(on_frames.train_dataset.starts) == sorted(frames)
    assert on_frames.val_idx == with_windows.val_idx
    assert not study.takes(ARMS["full32"])
    assert not Study(tmp_path).takes(ARMS["frames"])


def _data(study, arm):
    folder = study.run("egnn", "start", 0)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(potential(tiny_egnn()), folder / "best_model")
    return [*overrides(study, "egnn", arm, 0), "data.val_window=5", "data.test_window=5", "data.train_sampler_cls=null"]


def test_a_folder_is_of_one_study(tmp_path):
    Study(tmp_path, seconds=60.0).prepare()
    Study(tmp_path, seconds=60.0).prepare()
    with pytest.raises(ValueError, match="other settings"):
        Study(tmp_path, seconds=61.0).prepare()


def simulation(folder, errors, every_fs=500.0):
    """A relabelled evaluation: errors[start][time] of H and C, None where there is no geometry."""
    folder.mkdir()
    lines = ["model,start,step,time_fs,element,mae"]
    for start, over_time in enumerate(errors):
        for i, error in enumerate(over_time):
            if error is not None:
                time = every_fs * i
                lines += [f"m,{start},{2 * time},{time},{element},{error / 2}" for element in ("H", "C")]
    (folder / "true_error_by_start.csv").write_text("\n".join(lines) + "\n")
    (folder / "settings.json").write_text(json.dumps({"starts": [{}] * len(errors)}))
    return folder


def test_true_errors_of_long_runs(tmp_path):
    errors = [[0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 900.0, None]]
    found = long_run(simulation(tmp_path / "a", errors))
    late = [0.3, 0.4, 0.5, 0.3, LOST, LOST]  # from 1 ps on; a geometry that is not there is lost
    assert found["mean"] == pytest.approx(np.mean(late))
    assert found["median"] == pytest.approx(np.median(late))
    assert found["lost"] == 0.5
    assert found["uncapped"] == pytest.approx(np.mean([0.3, 0.4, 0.5, 0.3, 900.0]))
    assert found["missing"] == 1
    assert [point[3] for point in found["over_time"]] == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert found["over_time"][1][1] == pytest.approx(0.2)


def row(arm, seed, mean, model="egnn"):
    long = {"mean": mean, "uncapped": mean, "median": mean, "lost": 0.1, "elements": {"H": 0.1, "C": 0.2, "Pd": 0.3}}
    long["over_time"] = [(0.0, 0.1, 0.1, 0.0), (1000.0, mean, mean, 0.1)]
    return {
        **{
            "model": model,
            "arm": arm,
            "seed": seed,
            "budget": 60.0,
            "windows": None,
            "picoseconds": 1.0,
            "starts": 2,
            "updates": 1000.0,
            "labels": 0,
        },
        **{"frames": 8000.0, "seconds": 60.0, "snapshots": 0.2, "along_reference": 0.7, "elements": long["elements"]},
        **{"along_by_step": [(0, 0.2), (299, 0.9)], "long_run": long},
    }


def test_report(tmp_path):
    rows = [row("control", 0, 1.0), row("control", 1, 0.6), row("visits", 0, 0.4), row("visits", 1, 0.9)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    write_results(tmp_path / "results.jsonl", tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"| {ARMS['visits'].title}") and "%" in line)
    assert "0.650 (0.400 to 0.900)" in line
    assert "-19 %" in line  # 0.65 against 0.8
    assert "1 of 2" in line
    command = text.split("```bash\n")[1].split("\n")[0]
    assert command.endswith(
        "--model egnn --seconds 60 --picoseconds 1 --starts 2 --seed 0 --seed 1 --arm control --arm visits"
    )
    for name in ("true_error.png", "along_reference.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_report_without_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m benchmarks\.study run"):
        write_results(tmp_path / "none.jsonl", tmp_path / "RESULTS.md")


def test_what_training_logs(tmp_path):
    folder = tmp_path / "run" / "csv" / "version_0"
    folder.mkdir(parents=True)
    names = [
        "val_loss",
        "train_seconds",
        "train_updates",
        "train_frames",
        "test_forces_mae_step_0",
        "test_forces_mae_step_50",
    ]
    names += [f"test_forces_mae_{element}" for element in ("H", "C", "Pd")]
    rows = [names, ["0.5", "10", "100", "800", *[""] * 5], ["0.4", "20", "200", "1600", *[""] * 5]]
    (folder / "metrics.csv").write_text("\n".join(",".join(one) for one in rows) + "\n")
    again = folder.with_name("version_10")  # the run was interrupted
    again.mkdir()
    last = [*[""] * 4, "0.1", "0.3", "0.1", "0.2", "0.4"]
    (again / "metrics.csv").write_text("\n".join(",".join(one) for one in (names, last)) + "\n")
    found = training(tmp_path / "run")
    assert (found["seconds"], found["updates"], found["val_loss"], found["labels"]) == (20.0, 200.0, 0.4, 0)
    assert found["along_by_step"] == [(0, 0.1), (50, 0.3)]
    assert found["along_reference"] == pytest.approx(0.7)


def test_displaced_frames(database, tmp_path):
    module = TrajectoryDataModule(str(database), 4, split_file=None)
    module.setup()
    callback = DisplacedFrames("ase.calculators.emt:EMT", n_labels=40, n_systems=1, steps=40)
    callback._begin(module)
    task = type("Task", (), {"trainer": type("Trainer", (), {"datamodule": module})})
    frames = [module.frames.window("_positions", i, 1)[0] for i in module.train_idx]
    moves = []
    for atoms in callback._simulate(task, module.frames):
        nearest = min(frames, key=lambda positions: np.abs(atoms.positions - positions).sum())
        moves.append(atoms.positions - nearest)
    assert np.std(moves) == pytest.approx(0.1, rel=0.2)
