"""Runs of `spktrain`, each with one thread. A run that is interrupted continues; one that is done is not made again."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.study.arms import ARMS, MODELS, Arm

__all__ = ["Study", "overrides", "train"]


@dataclass(frozen=True)
class Study:
    """Where a study is, and what all its runs share.

    Args:
        folder: of the study.
        seconds: training compute of the first model of a seed, and again of each arm.
        reference: reference calculator of visited states and of true errors.
        max_train_windows: number of training windows; None takes all.
        device: cpu or cuda.
    """

    folder: Path
    seconds: float = 300.0
    reference: str = "tblite:GFN1-xTB"
    max_train_windows: int | None = None
    device: str = "cpu"

    @property
    def database(self) -> Path:
        """The data, written when they are first needed."""
        return self.folder / "h2_pd6_graphene.db"

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
    if (
        folder / "best_model.task"
    ).exists():  # the last that spktrain writes; best_model is there from the first epoch on
        return folder
    if arm != "start":
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
    callbacks = ["checkpoint", "lrmonitor", "ema", "curriculum", "budget"]
    if arm == "start":
        own = [
            f"experiment={MODELS[model]}",
            "callbacks.budget.final_lr=5e-4",
            "+callbacks.curriculum.rule.max_length=1",
        ]
    else:
        own = _branch(study, ARMS[arm], study.run(model, "start", seed))
        callbacks += ["visits"] if ARMS[arm].labels else []
    return [
        *own,
        f"callbacks=[{','.join(callbacks)}]",
        f"run.path={folder.parent.resolve()}",
        f"run.id={folder.name}",
        f"+seed={seed}",
        f"data.datapath={study.database.resolve()}",
        "data.test_window=300",
        "data.max_test_windows=40",
        f"data.max_train_windows={study.max_train_windows or 'null'}",
        "task.scheduler_cls=null",
        "callbacks.curriculum.rule._target_=spk_dt.training.Scheduled",
        "callbacks.curriculum.reset_lr=null",
        f"callbacks.budget.seconds={study.seconds}",
        f"trainer.accelerator={'gpu' if study.device == 'cuda' else 'cpu'}",
        "trainer.max_epochs=-1",
        "print_config=false",
        "+trainer.enable_progress_bar=false",
    ]


def _branch(study: Study, arm: Arm, start: Path) -> list[str]:
    """What an arm has of its own."""
    own = [
        "experiment=dt_finetune",
        f"model_file={start.resolve()}",
        "globals.lr=1e-3",
        "callbacks.budget.final_lr=5e-5",
        f"globals.max_rollout_length={arm.length}",
        f"+callbacks.curriculum.rule.max_length={arm.length}",
        f"task.rollout_length={arm.length if arm.constant else min(2, arm.length)}",
        *arm.overrides,
    ]
    if arm.labels:
        own += [
            f"callbacks.visits.reference={study.reference}",
            "callbacks.visits.n_rounds=6",
            "callbacks.visits.every_n_epochs=2",
            "callbacks.visits.n_systems=4",
            "callbacks.visits.steps=800",
            "callbacks.visits.n_labels=20",
            "callbacks.visits.max_steps=8000",
        ]
    if arm.labels == "displaced":
        own.append("callbacks.visits._target_=benchmarks.study.displaced.DisplacedFrames")
    return own
