"""The study: its runs compose, its numbers are what they are said to be; the runs themselves take hours."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.db import connect
from helpers.models import potential, tiny_egnn
from helpers.pair_potential import pair_model, pair_trajectory
from helpers.programs import composed
from hydra.utils import instantiate
from matplotlib import pyplot as plt
from typer.testing import CliRunner

pytest.importorskip("benchmarks.study.arms")  # not part of the wheel

from benchmarks.study.arms import ARMS, FEW_LENGTH, MODELS
from benchmarks.study.commands import app
from benchmarks.study.displaced import DisplacedFrames
from benchmarks.study.figures import plot_along, plot_ensembles, plot_lasting
from benchmarks.study.fractions import along_with_fraction
from benchmarks.study.hydrogen import STATES, phase_error, share_of_states, states
from benchmarks.study.lasting import of_run
from benchmarks.study.measure import ASTRAY, LOST, beside, follow, long_run, training
from benchmarks.study.rows import longest, most_starts, several_seeds, usual
from benchmarks.study.tables import ensemble_table, main_table
from benchmarks.study.train import Study, overrides
from benchmarks.study.write import write_results
from spk_dt.data import TrajectoryDataModule, TrajectoryWriter
from spk_dt.training import Stage


@pytest.fixture
def study(tmp_path):
    for model in MODELS:
        folder = Study(tmp_path).run(model, "start", 0)
        folder.mkdir(parents=True)
        torch.save(potential(tiny_egnn()), folder / "best_model")
    return Study(tmp_path, seconds=60.0)


@pytest.mark.parametrize("arm", ["start", *(name for name, one in ARMS.items() if not one.whole)])
def test_arms_compose(study, arm):
    config = composed(*overrides(study, "painn", arm, 0))
    assert config.callbacks.budget.seconds == (120.0 if arm != "start" and ARMS[arm].scratch else 60.0)
    length = 1 if arm == "start" else ARMS[arm].length
    if kind := {"hardened": "Hardening", "drawn": "OnPolicyLabels"}.get(arm.split("_")[0]):
        assert config.callbacks.on_policy._target_ == f"spk_dt.training.{kind}"
        assert config.callbacks.on_policy.share == 0.35
        assert "_target_" not in config.callbacks.curriculum  # what is left of dt_finetune
        assert config.task.rollout_length == 1
        return
    assert config.callbacks.curriculum.max_length == length
    assert config.data.train_window == length >= config.task.rollout_length
    rule = instantiate(config.callbacks.curriculum.rule)
    if arm == "full16_converged":
        assert rule.over(Stage(2, 5, 1e-4, config.task.scheduler_args.min_lr))
        assert not rule.over(Stage(2, 5, 2e-4, config.task.scheduler_args.min_lr))
        assert config.callbacks.curriculum.reset_lr == config.globals.lr
        assert config.callbacks.budget.final_lr is None
        return
    assert config.task.scheduler_cls is None
    assert rule.max_length == length
    used = [
        share
        for share in np.linspace(0.01, 1.0, 100)
        if rule.over(Stage(config.task.rollout_length, 1, 1.0, 0.0, share))
    ]
    assert bool(used) == (length > config.task.rollout_length)
    assert not used or used[0] >= (0.5 if arm == "full16_late" else 0.0)
    labels = None if arm == "start" else ARMS[arm].labels
    assert ("on_policy" in config.callbacks) == (labels is not None)
    if labels is not None:
        instantiate(config.callbacks.on_policy)
        assert config.callbacks.on_policy.simulations._target_.endswith("DisplacedFrames") == (labels == "displaced")


def test_the_default_is_the_experiment_as_it_is(study):
    config, plain = composed(*overrides(study, "painn", "default", 1)), composed("experiment=dt_painn")
    for part in ("model", "task", "callbacks", "globals"):
        assert config[part] == plain[part]
    assert config.seed == 1
    assert config.data.datapath == str(study.database)
    assert not study.takes(ARMS["default"])


@pytest.mark.slow
def test_arms_differ_from_the_control_in_what_they_say(study):
    """Data, validation, learning rate and budget are the same in all."""
    control = composed(*overrides(study, "egnn", "control", 0))
    for arm in (name for name, one in ARMS.items() if not one.scratch):
        config = composed(*overrides(study, "egnn", arm, 0))
        assert config.model == control.model
        assert config.trainer == control.trainer
        assert config.callbacks.budget.seconds == control.callbacks.budget.seconds
        assert ARMS[arm].converged or config.callbacks.budget == control.callbacks.budget
        assert config.task.optimizer_args == control.task.optimizer_args
        differing = {key for key in config.data if config.data[key] != control.data[key]}
        assert differing <= {"train_window"}


def test_few_windows(tmp_path, database, monkeypatch):
    """The control on all frames of the windows sees what the rollouts are compared with, and nothing else."""
    monkeypatch.chdir(tmp_path)  # the split is kept in the folder of the run
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


def test_settings_of_a_study_are_whole_or_not_there(tmp_path, monkeypatch):
    """Runs side by side read them while the first one writes; half of them is no JSON."""

    def half(path, text):
        path.write_bytes(text.encode()[: len(text) // 2])
        raise OSError("interrupted")

    study = Study(tmp_path, seconds=60.0)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Path, "write_text", half)
        with pytest.raises(OSError, match="interrupted"):
            study.prepare()
    study.prepare()
    assert Study.of(tmp_path) == study


def simulation(folder, errors, every_fs=500.0):
    """A relabelled evaluation: errors[start][time] of H and C, None where there is none; of energies -100 of it."""
    folder.mkdir()
    lines, energies = ["model,start,step,time_fs,element,mae"], ["model,start,step,time_fs,error_mev_per_atom"]
    for start, over_time in enumerate(errors):
        for i, error in enumerate(over_time):
            if error is not None:
                time = every_fs * i
                lines += [f"m,{start},{2 * time},{time},{element},{error / 2}" for element in ("H", "C")]
                energies.append(f"m,{start},{2 * time},{time},{-100.0 * error}")
    (folder / "true_error_by_start.csv").write_text("\n".join(lines) + "\n")
    (folder / "true_energy_error_by_start.csv").write_text("\n".join(energies) + "\n")
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
    assert found["by_start"] == pytest.approx([0.4, (0.3 + 2 * LOST) / 3])
    assert found["lost_fs"] == [None, 1500.0]
    assert [point[3] for point in found["over_time"]] == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert found["over_time"][1][1] == pytest.approx(0.2)
    assert pytest.approx(38.78, abs=0.01) == ASTRAY
    assert found["energy"] == pytest.approx(45.0)  # of 30, 40, 50; 30, 90000 and one that is not there
    assert found["astray_fs"] == [1500.0, 1500.0]


def test_a_simulation_without_a_geometry_is_astray(tmp_path):
    """As it has exploded; one whose energy is right is not."""
    found = long_run(simulation(tmp_path / "a", [[0.1, 0.3, 0.3, 0.3], [0.1, 0.3, 0.3, None]]))
    assert found["astray_fs"] == [None, 1500.0]


def row(arm, seed, mean, model="egnn"):
    long = {"mean": mean, "uncapped": mean, "median": mean, "lost": 0.1, "elements": {"H": 0.1, "C": 0.2, "Pd": 0.3}}
    long |= {
        "by_start": [mean - 0.1, mean + 0.1],
        "lost_fs": [None, 1000.0],
        "energy": 12.0,
        "astray_fs": [None, 500.0],
    }
    beside = {"true_error": 0.2, "h_of_r": 0.05, "drift": 0.1, "phase": [(25.0, 0.25, 8)], "same_state": 0.9}
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
        **{"along_by_step": [(0, 0.2), (299, 0.9)], "along_at_start": 0.8, "long_run": long, "follow": beside},
    }


def ensemble(arm, lost):
    settings = {
        "model": "egnn",
        "arm": arm,
        "seed": 0,
        "budget": 60.0,
        "windows": None,
        "picoseconds": 4.0,
        "starts": 2,
    }
    over_time = [(0.0, 0.1, 0.1, 0.0), (1000.5, 0.2, 0.2, 0.0), (2000.5, 0.3, 0.3, lost), (4000.5, 0.3, 0.3, lost)]
    went_astray = {"astray_fs": [1000.5] * 2 + [3000.5] * 3 + [None] * 5}
    return settings | {
        "temperature": 300.0,
        "every_ps": 1.0,
        "long_run": {"mean": 0.3, "median": 0.25, "over_time": over_time, "by_start": [0.3] * 10} | went_astray,
        "states": [(4000.5, {"away": 3, "sticking": 2, "dissociated": 1})],
        "conservation": {"mean_temperature_k": 301.2},
    }


def one_beside(arm, seed, ends):
    settings = {"model": "egnn", "arm": arm, "seed": seed, "budget": 60.0, "windows": None, "data": "longer.db"}
    found = {"simulations": 2, "exploded": 0, "h_of_r": 0.05, "h_of_r_of_others": 0.1, "keep_bonds": 1.0}
    return settings | found | {"ends": [[one, "sticking"] for one in ends]}


def test_report(tmp_path):
    rows = [row("control", 0, 1.0), row("control", 1, 0.6), row("visits", 0, 0.4), row("visits", 1, 0.9)]
    rows[-1]["along_reference"] = 0.8
    rows += [row("control", 0, 1.0, "painn"), row("visits_hot", 0, 0.3, "painn")]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    ensembles = [ensemble("control", 0.6), ensemble("visits", 0.1)]
    (tmp_path / "ensembles.jsonl").write_text("".join(json.dumps(one) + "\n" for one in ensembles))
    settings = {
        "model": "egnn",
        "arm": "control",
        "seed": 0,
        "starts": 2,
        "budget": 60.0,
        "windows": None,
        "elements": {"H": 0.2, "C": 0.1, "Pd": 0.1},
    }
    fractions = [
        settings | {"fraction": f, "along_reference": along, "snapshots": 0.2 * f}
        for f, along in ((0.5, 0.6), (1.0, 0.8))
    ]
    (tmp_path / "fractions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in fractions))
    besides = [one_beside("control", 0, ["away", "sticking"]), one_beside("control", 1, ["sticking", "sticking"])]
    (tmp_path / "beside.jsonl").write_text("".join(json.dumps(one) + "\n" for one in besides))
    certified = {"model": "egnn", "budget": 60.0, "picoseconds": 10.0, "number": 4, "temperature": None, "seed": 0}
    lasting = [
        certified | {"arm": arm, "failures": failures, "training_labels": 0}
        for arm, failures in (("control", [0.5, 1.0, 2.0, 2.0]), ("drawn", [6.0]), ("paper", [1.0]))
    ]
    as_it_is = certified | {"arm": "default", "budget": None, "failures": [], "training_labels": 9, "picoseconds": 20.0}
    as_it_is |= {"largest": [0.5, 0.25], "half_limits": 1}
    (tmp_path / "lasting.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*lasting, as_it_is]))
    write_results(tmp_path, tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"| {ARMS['visits'].title}") and "%" in line)
    assert "0.650 (0.400 to 0.900)" in line
    assert "-19 %" in line  # 0.65 against 0.8
    assert "0.750 (0.700 to 0.800) | -6 % | +7 % |" in line  # along the reference: began with 0.8, its control has 0.7
    assert "| 0.5 | 10 | 0.100 | 0.600 | -25 % | 0.200, 0.100, 0.100 |" in text
    assert "fractions --starts 2 --model egnn --arm control --seed 0 --fraction 1 --fraction 0.5\n" in text
    assert "1 of 2" in line
    assert (
        "| painn | 60 | 1 ps | 1 | 1.000 | 0.300 | -70 % | 1 of 1 | 1 of 2 | 1 of 2 | 1 of 2 | 1 of 2 | 0.700 | 0.700 |"
        in text
    )
    command = text.split("```bash\npython -m benchmarks.study run")[1].split("\n")[0]
    assert command.endswith(
        "--model egnn --seconds 60 --picoseconds 1 --starts 2 --seed 0 --seed 1 --arm control --arm visits"
    )
    beside = "| 0.200 (0.200 to 0.200) | 0.050 (0.050 to 0.050) | 0.10 (0.10 to 0.10) | 0.25 | 90 (90 to 90) |"
    assert f"| {ARMS['visits'].title} | 2 {beside}" in text
    assert f"| {ARMS['visits'].title} | 1 | 10 | 100, 90, 90 | 80, 80, 50 | 0.300 | 0.250 | 301 | - | 3, 2, 1 |" in text
    options = "--temperature 300 --picoseconds 4 --starts 2 --every-ps 1 --seed 0 --arm control --arm visits"
    assert f"ensembles --model egnn {options}" in text
    ends = "1, 3, 0 | 0, 4, 0 | 75 (50 to 100)"
    assert (
        f"| egnn | {ARMS['control'].title} | 2 | 4 | 0 | 0.050 (0.050 to 0.050) | 100 (100 to 100) | {ends} |" in text
    )
    assert "last --picoseconds 20 --number 4 --model egnn --seed 0 --arm default\n" in text
    assert f"| egnn | {ARMS['default'].title} | 1 | 9 | 0 of 4 | 0 | 53 % | - | 0.50, 0.25 | 1 |" in text
    assert "beside longer.db --model egnn --arm control --seed 0 --seed 1\n" in text
    for name in ("true_error.png", "along_reference.png", "ensembles.png", "lasting_60s.png", "survival.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    (axes,) = plot_lasting(lasting, ("control", "drawn")).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    np.testing.assert_allclose(drawn[ARMS["control"].title], [[0, 100], [0.5, 75], [1, 50], [2, 0], [10, 0]])
    np.testing.assert_allclose(drawn[ARMS["drawn"].title], [[0, 100], [6, 75], [10, 75], [10, 75]])
    assert len(drawn) == 2


def test_what_a_row_says_of_a_certificate(tmp_path):
    """Errors of simulations that fail do not count as those of states that pass."""
    outcomes = [
        {"failed_ps": None, "reason": None, "deviations": {"4": [0.2, 0.6], "8": [0.3, 0.1]}},
        {"failed_ps": 2.0, "reason": "energy", "deviations": {"2": [1.5, 0.9]}},
    ]
    record = {
        "outcomes": outcomes,
        "failures_with_other_limits": {"0.5": 2, "2": 0},
        "labels": 3,
        "statement": "not safe",
    }
    (tmp_path / "certificate.json").write_text(json.dumps({"models": {"x": record}}))
    (tmp_path / "hardening").mkdir()
    with connect(tmp_path / "hardening" / "round_000.db") as database:
        database.write(Atoms("H2"))
    assert of_run(tmp_path, tmp_path) == {
        "failures": [2.0], "reasons": ["energy"], "largest": [0.3, 0.6], "half_limits": 2,
        "certificate_labels": 3, "training_labels": 1, "statement": "not safe",
    }  # fmt: skip


def test_the_longest_simulations_count(tmp_path):
    """A model with two lengths is in the main table once."""
    rows = [row(arm, 0, mean) for arm, mean in (("control", 1.0), ("visits_hot", 0.4), ("visits", 0.3))]
    rows += [row(arm, 0, mean) | {"picoseconds": 10.0} for arm, mean in (("control", 2.0), ("visits_hot", 0.5))]
    assert [(one["arm"], one["picoseconds"]) for one in longest(rows)] == [
        ("control", 10.0),
        ("visits_hot", 10.0),
        ("visits", 1.0),
    ]
    table = main_table(rows)
    assert "| egnn | 60 | 10 ps | 1 | 2.000 | 0.500 | -75 % |" in table
    assert "| 1 ps |" not in table


def test_other_training_is_kept_apart():
    """More seconds or few windows are rows of their own in the table, and not in the figures."""
    rows = [row(arm, 0, mean) for arm, mean in (("control", 1.0), ("visits_hot", 0.4))]
    more = [row(arm, 0, mean) | {"budget": 240.0} for arm, mean in (("control", 0.8), ("visits_hot", 0.2))]
    few = [one | {"windows": 256} for one in rows[:1]]
    table = main_table([*rows, *more, *few])
    assert "| egnn | 60 | 1 ps | 1 | 1.000 | 0.400 |" in table
    assert "| egnn | 240 | 1 ps | 1 | 0.800 | 0.200 |" in table
    assert usual([*rows, *more[:1], *few]) == rows
    seeds = [row("control", 1, 1.0), row("control", 0, 1.0), row("visits", 0, 0.5)]
    assert several_seeds(seeds) == seeds[:2]
    assert several_seeds(seeds[1:]) == seeds[1:]
    figure = plot_along([*seeds, *more[:1]])
    assert len(figure.axes) == len(figure.axes[0].lines) == 1
    plt.close(figure)


def test_simulations_of_different_length_are_not_averaged():
    """Each length has a panel of its own, with its own times."""
    longer = ensemble("control", 0.5) | {"picoseconds": 8.0}
    longer["long_run"] = {**longer["long_run"], "over_time": [(0.0, 0.1, 0.1, 0.0), (8000.0, 0.3, 0.3, 1.0)]}
    figure = plot_ensembles([ensemble("control", 0.25), longer])
    ends = [axes.lines[0].get_xydata()[-1].tolist() for axes in figure.axes]
    assert ends == [[4.0005, 75.0], [8.0, 0.0]]
    plt.close(figure)


def test_ensembles_of_different_size_are_pooled():
    """Each simulation counts once, whatever the number of starts of its seed."""
    less = ensemble("control", 1.0) | {"seed": 1, "starts": 1}
    less["long_run"] = {**less["long_run"], "mean": 0.5, "by_start": [0.5] * 5}
    again = less | {"seed": 0}  # its starts are among those of the other row of this seed
    rows = most_starts([ensemble("control", 0.1), less, again])
    assert rows == [ensemble("control", 0.1), less]
    assert "| 2 | 15 | 100, 60, 60 | 80, 80, 50 | 0.400 (0.300 to 0.500) |" in ensemble_table(rows)
    figure = plot_ensembles(rows)
    assert figure.axes[0].lines[0].get_ydata()[-1] == pytest.approx(60.0)
    plt.close(figure)


def test_report_without_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m benchmarks\.study run"):
        write_results(tmp_path, tmp_path / "RESULTS.md")
    with pytest.raises(FileNotFoundError, match=r"python -m benchmarks\.study run"):
        Study.of(tmp_path)


def test_simulations_of_which_only_the_start_would_be_relabelled_are_refused(tmp_path):
    Study(tmp_path, seconds=60.0).prepare()
    for picoseconds, every in (("0.5", "0.5"), ("10", "6"), ("1", "0"), ("-1", "0.5")):
        for command in (["run", "--seconds", "60"], ["ensembles"]):
            options = ["--out", str(tmp_path), "--picoseconds", picoseconds, "--every-ps", every]
            result = CliRunner().invoke(app, [*command, *options])
            assert result.exit_code == 2
            assert f"--every-ps {every} does not fit --picoseconds {picoseconds}" in " ".join(result.output.split())
    assert not (tmp_path / "runs").exists()


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
    simulations = DisplacedFrames(n_systems=1, steps=40)
    simulations.start(module.train_dataset)
    task = type("Task", (), {"trainer": type("Trainer", (), {"datamodule": module})})
    frames = [module.frames.window("_positions", i, 1)[0] for i in module.train_idx]
    moves = []
    for atoms in simulations.run(task, module.frames, 40)[0]:
        nearest = min(frames, key=lambda positions: np.abs(atoms.positions - positions).sum())
        moves.append(atoms.positions - nearest)
    assert len(moves) == 40
    assert np.std(moves) == pytest.approx(0.1, rel=0.2)


def test_phase_error():
    """That of vibrations of known frequency; none between a vibration and itself with another amplitude."""
    time = np.arange(0.0, 160.0, 0.5)

    def bond(frequency, amplitude):
        slow = 0.02 * np.sin(time / 50.0)
        return 0.75 + slow + amplitude * np.cos(2.0 * np.pi * frequency * time + 0.3)

    for faster in (1.0, 1.01, 0.97):
        found = phase_error(bond(faster / 8.0, 0.05), bond(1.0 / 8.0, 0.04), 0.5)
        for moment in (50.0, 100.0, 140.0):
            expected = 2.0 * np.pi / 8.0 * abs(faster - 1.0) * moment
            assert found[round(2 * moment)] == pytest.approx(expected, abs=0.02, rel=0.02)


def test_states_of_hydrogen():
    """Across the boundary of the cell, too."""
    atoms = Atoms("H2Pd", cell=[10.0, 10.0, 20.0], pbc=True)
    places = [
        [[0, 0, 5], [0, 0, 5.8]],
        [[0, 0, 2.6], [0, 0, 1.8]],
        [[0, 0, 19], [0, 0, 18.2]],
        [[0, 0, 1.5], [3, 0, 1.5]],
    ]
    positions = np.array([[*place, [0, 0, 0]] for place in places], dtype=float)
    assert [STATES[i] for i in states(positions, atoms)] == ["away", "sticking", "sticking", "dissociated"]


@pytest.mark.slow
def test_beside_the_reference_and_ensembles(tmp_path, monkeypatch):
    """A model that is the reference is in step with it; one with deeper wells is not. What is there is not made again."""
    study = Study(tmp_path, reference="helpers.pair_reference:Reference")
    atoms = Atoms("Pd2H2", [[0, 0, 0], [2.6, 0, 0], [1.3, 2.2, 0], [1.3, 0.75, 2.1]])
    with TrajectoryWriter(study.database, splits={"test": ["a"]}) as writer:
        writer.add("a", pair_trajectory(atoms, 320, 0.5, 0, kelvin=100.0), timestep_fs=0.5)
    found = {}
    for name, depth in (("exact", 1.0), ("off", 1.3)):
        run = study.run("egnn", name, 0)
        pair_model(run / "best_model", depth=depth)
        found[name] = follow(study, run)
    assert found["exact"]["true_error"] < 1e-6 < 0.01 < found["off"]["true_error"]
    assert found["exact"]["h_of_r"] < 1e-6 < found["off"]["h_of_r"]
    longer = tmp_path / "longer.db"
    with TrajectoryWriter(longer) as writer:
        for seed in (1, 2):
            writer.add(f"b{seed}", pair_trajectory(atoms, 400, 0.5, seed, kelvin=100.0), timestep_fs=0.5)
    exact, off = (beside(study, study.run("egnn", name, 0), longer) for name in ("exact", "off"))
    assert exact["h_of_r"] < 1e-6 < off["h_of_r"]
    assert 1e-6 < exact["h_of_r_of_others"] == off["h_of_r_of_others"]
    assert exact["simulations"] == 2
    assert exact["exploded"] == 0
    assert exact["keep_bonds"] == 1.0
    assert [one == other for one, other in exact["ends"]] == [True, True]
    monkeypatch.setattr("benchmarks.study.measure.evaluate", None)
    assert beside(study, study.run("egnn", "exact", 0), longer) == exact
    assert follow(study, study.run("egnn", "exact", 0)) == found["exact"]
    along = [
        along_with_fraction(study, study.run("egnn", "off", 0), fraction, starts=1) for fraction in (0.0, 0.5, 1.0)
    ]
    assert along[0]["along_reference"] < 1e-6 < along[1]["along_reference"] < along[2]["along_reference"]
    assert along[1]["snapshots"] == pytest.approx(0.5 * along[2]["snapshots"])
    shares = share_of_states(study.folder / "simulations" / "egnn-exact-0-150fs", "egnn-exact-0", [np.inf, 60.0], 100)
    assert [(time, sum(one.values())) for time, one in shares] == [
        (50.0, 2),
        (100.0, 1),
        (150.0, 1),
    ]  # one is lost at 60 fs
    assert shares[1][1] == {"away": 0, "sticking": 0, "dissociated": 1}
