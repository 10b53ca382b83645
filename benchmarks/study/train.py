"""Runs of `spktrain`, each with one thread. A run that is interrupted continues; one that is done is not made again."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.study.arms import ARMS, FEW_LENGTH, MODELS, Arm
from spk_dt.data import TrajectoryDataModule
from spk_dt.data.embedded import unpack

__all__ = ["Study", "overrides", "train"]

_CALLBACKS = ("checkpoint", "lrmonitor", "dt_ema", "budget")


@dataclass(frozen=True)
class Study:
    """Where a study is, and what all its runs share.

    Args:
        folder: of the study.
        seconds: training compute of the first model of a seed, and again of each arm.
        reference: reference calculator of on-policy labels and of true errors.
        windows: number of training windows, of `FEW_LENGTH` frames in all arms; None takes all there are, as long as an arm
            needs them.
        device: cpu or cuda.
    """

    folder: Path
    seconds: float = 300.0
    reference: str = "tblite:GFN1-xTB"
    windows: int | None = None
    device: str = "cpu"

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The study in a folder.

        Raises:
            FileNotFoundError: if there is none.
        """
        file = folder / "study.json"
        if not file.exists():
            raise FileNotFoundError(f"there is no '{file}'; begin with: python -m benchmarks.study run --out {folder}")
        return cls(folder.resolve(), **json.loads(file.read_text()))

    @property
    def database(self) -> Path:
        """The data."""
        return self.folder / "h2_pd6_graphene.db"

    @property
    def split_file(self) -> Path:
        """The frames of few windows as a split of the data."""
        return self.folder / f"frames-of-{self.windows}-windows.npz"

    def prepare(self) -> None:
        """Write the data; refuse a folder in which a study with other settings was begun.

        Raises:
            ValueError: if there is such a study.
        """
        settings = {key: value for key, value in asdict(self).items() if key != "folder"}
        file = self.folder / "study.json"
        if file.exists() and json.loads(file.read_text()) != settings:
            raise ValueError(f"'{file}' is of a study with other settings, {file.read_text()}; choose another folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():  # others may be reading it
            part = file.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps(settings))
            part.rename(file)
        if not self.database.exists():
            unpack(self.database)
        if self.windows is not None and not self.split_file.exists():
            _write_split(self)

    def takes(self, arm: Arm) -> bool:
        """Whether an arm makes sense among those of equal seconds here."""
        if arm.whole:
            return False
        return not arm.frames if self.windows is None else arm.length <= FEW_LENGTH

    def run(self, model: str, arm: str, seed: int) -> Path:
        """Folder of a run."""
        return self.folder / "runs" / f"{model}-{arm}-{seed}"


def train(study: Study, model: str, arm: str, seed: int) -> Path:
    """Train one arm, unless that is done, and before it the model that it begins with.

    Args:
        study: the study.
        model: name in `MODELS`.
        arm: name in `ARMS`, or ``start``.
        seed: of weights and batches.

    Returns:
        folder of the run.
    """
    folder = study.run(model, arm, seed)
    last_written = folder / "best_model.task"  # best_model is there from the first epoch on
    if last_written.exists():
        return folder
    if arm != "start" and not ARMS[arm].scratch:
        train(study, model, "start", seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".log").open("a") as log:
        subprocess.run(
            [Path(sys.executable).with_name("spktrain"), *overrides(study, model, arm, seed)],
            check=True,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    return folder


def overrides(study: Study, model: str, arm: str, seed: int) -> list[str]:
    """The arguments of `spktrain` of a run; see `train`."""
    folder = study.run(model, arm, seed)
    where = [
        f"run.path={folder.parent.resolve()}",
        f"run.id={folder.name}",
        f"+seed={seed}",
        f"data.datapath={study.database.resolve()}",
        f"trainer.accelerator={'gpu' if study.device == 'cuda' else 'cpu'}",
        "print_config=false",
        "+trainer.enable_progress_bar=false",
    ]
    if arm != "start" and ARMS[arm].whole:
        return [f"experiment=dt_{model}", *ARMS[arm].overrides, *where]
    if arm == "start":
        chosen, own = Arm("start"), [f"experiment={MODELS[model]}", "callbacks.budget.final_lr=5e-4"]
    elif ARMS[arm].scratch:
        chosen, own = ARMS[arm], [f"experiment={MODELS[model]}", "callbacks.budget.final_lr=5e-5"]
    else:
        chosen, own = ARMS[arm], _branch(study, ARMS[arm], study.run(model, "start", seed))
    return [
        *own,
        *chosen.overrides,
        f"callbacks=[{','.join([*_CALLBACKS, *chosen.callbacks])}]",
        f"globals.max_rollout_length={chosen.length}",
        *where,
        "data.test_window=300",
        "data.max_test_windows=40",
        *_windows(study, arm),
        *(_growth(chosen) if "curriculum" in chosen.callbacks else []),
        f"callbacks.budget.seconds={(2.0 if chosen.scratch else 1.0) * study.seconds}",
        "trainer.max_epochs=-1",
    ]


def _growth(arm: Arm) -> list[str]:
    """When S grows; by convergence with the learning rate that `dt_finetune` has for it."""
    if arm.converged:
        return ["callbacks.budget.final_lr=null", "task.scheduler_args.min_lr=1e-4"]
    return [
        "task.scheduler_cls=null",
        "callbacks.curriculum.rule._target_=spk_dt.training.Scheduled",
        f"+callbacks.curriculum.rule.max_length={arm.length}",
        f"+callbacks.curriculum.rule.begin={arm.begin}",
        f"+callbacks.curriculum.rule.end={arm.begin + 0.8 * (1.0 - arm.begin)}",
        "callbacks.curriculum.reset_lr=null",
    ]


def _windows(study: Study, arm: str) -> list[str]:
    """Which windows of the data an arm trains on."""
    if study.windows is None:
        return []
    if arm != "start" and ARMS[arm].frames:
        return [f"++data.split_file={study.split_file.resolve()}", "data.train_window=1"]
    return [f"data.train_window={FEW_LENGTH}", f"data.max_train_windows={study.windows}"]


def _write_split(study: Study) -> None:
    """The frames of the windows, as a split whose training frames they are."""
    module = TrajectoryDataModule(
        str(study.database), 1, train_window=FEW_LENGTH, max_train_windows=study.windows, split_file=None
    )
    module.setup()
    frames = np.unique(module.train_dataset.starts[:, None] + np.arange(FEW_LENGTH))
    part = study.split_file.with_suffix(".part.npz")
    np.savez(part, train_idx=frames, val_idx=module.val_idx, test_idx=module.test_idx)
    part.rename(study.split_file)


def _branch(study: Study, arm: Arm, start: Path) -> list[str]:
    """What an arm has of its own."""
    own = [
        f"experiment={arm.experiment}",
        f"model_file={start.resolve()}",
        "globals.lr=1e-3",
        "callbacks.budget.final_lr=5e-5",
        f"task.rollout_length={arm.length if arm.constant else 1 if arm.begin else min(2, arm.length)}",
    ]
    on_policy = "callbacks.on_policy"
    if arm.labels:
        own.append(f"{on_policy}.labels.reference={study.reference}")
    if arm.labels == "dt_last":
        own.append(f"{on_policy}.goal.until_ps=10")
    elif arm.labels and arm.experiment == "dt_finetune":
        own += [
            f"{on_policy}.labels.n_labels=20",
            f"{on_policy}.schedule.n_rounds=6",
            f"{on_policy}.schedule.every_n_epochs=2",
            f"{on_policy}.simulations.n_systems=4",
            f"{on_policy}.simulations.steps=800",
            f"{on_policy}.simulations.max_steps=8000",
            f"{on_policy}.folder=visited",  # as in runs that are there, so that all are measured alike
        ]
    if arm.labels == "displaced":
        own.append("callbacks.on_policy.simulations._target_=benchmarks.study.displaced.DisplacedFrames")
    return own
