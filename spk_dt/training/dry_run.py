"""``+dry_run=true``: what a training would be, from a few measured steps; nothing is written.

All that ``spktrain`` makes of its settings is made, so what would be refused is refused. Then a few batches are trained on
in a folder that is removed: with the first S, and with the largest.
"""

import logging
import os
import resource
import statistics
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.experimental.callback import Callback as HydraCallback
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from schnetpack.utils import str2class

from spk_dt.duration import duration
from spk_dt.folders.run_folder import resolving
from spk_dt.folders.user_errors import message_for_user
from spk_dt.training.curriculum import Curriculum
from spk_dt.training.last_stage import LastStage
from spk_dt.training.time_left import Left, Pace, time_left

__all__ = ["DryRun"]

#: batches of a measured epoch; the first one is not counted, since much is done once
_BATCHES = 4


class DryRun(HydraCallback):
    """Hydra callback of ``spktrain`` that measures and tells, in place of the training, if ``dry_run`` is set.

    Raises:
        SystemExit: when it is done.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Instead of the job."""
        if not config.get("dry_run"):
            return
        try:
            with resolving(config), _elsewhere(config):
                print(_report(config))
        except Exception as error:
            if (message := message_for_user(error)) is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
                traceback.print_exc()
                raise SystemExit(1) from error
            raise SystemExit(f"spktrain: {message}") from error
        raise SystemExit(0)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A sweep has no single answer."""
        if config.get("dry_run"):
            raise SystemExit("spktrain: +dry_run=true is for one training; leave -m out.")


class _Clock(pl.Callback):
    """Seconds of each batch of training, and of the validation."""

    def __init__(self) -> None:
        self.batches: list[float] = []
        self.validation = self._since = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._since = _now(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.batches.append(_now(pl_module) - self._since)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = _now(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validation = _now(pl_module) - self._since

    @property
    def step(self) -> float:
        """A batch, s."""
        return statistics.median(self.batches[1:] or self.batches)


@contextmanager
def _elsewhere(config: DictConfig) -> Iterator[None]:
    """Work in a folder that is removed; data that are not there yet are made there as well."""
    before = Path.cwd()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="spktrain_dry_run_") as folder, open_dict(config):
        if not Path(config.run.data_dir).is_dir():
            config.run.data_dir = folder
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _report(config: DictConfig) -> str:
    """Make everything, measure, and say it in words."""
    sampler = config.data.train_sampler_cls
    data = instantiate(config.data, train_sampler_cls=str2class(sampler) if sampler else None)
    model = instantiate(config.model)
    scheduler = str2class(config.task.scheduler_cls) if config.task.scheduler_cls else None
    task: Any = instantiate(
        config.task, model=model, optimizer_cls=str2class(config.task.optimizer_cls), scheduler_cls=scheduler
    )
    made = [instantiate(one) for one in (config.get("callbacks") or {}).values() if one and "_target_" in one]
    curriculum = next((one for one in made if isinstance(one, Curriculum)), None)
    last = next((one for one in made if isinstance(one, LastStage)), None)
    steps = getattr(task, "rollout_length", 1)

    first, trainer = _measured(config, task, data, [] if curriculum is None else [curriculum])
    if last is not None:
        trainer.callbacks = [*_callbacks(trainer), last]  # type: ignore[attr-defined]  # set, but not declared
        last.setup(trainer, task, "fit")
    longest = steps if curriculum is None or (last is not None and last.possible) else curriculum.max_length
    clocks = {steps: first}
    if longest > steps:
        task.rollout_length = longest
        clocks[longest] = _measured(config, task, data, [])[0]
        task.rollout_length = steps

    batches = _limited(len(data.train_dataloader()), config.trainer.limit_train_batches)
    of_validation = _limited(len(data.val_dataloader()), config.trainer.limit_val_batches)
    pace = Pace(steps, first.step * batches, first.validation * of_validation)
    left = _whole(trainer, task, pace, [*made], config.trainer.max_epochs)
    sizes = {name: len(getattr(data, f"{name}_dataset")) for name in ("train", "val", "test")}
    shape = getattr(data, "window", {"train": 1, "val": 1, "test": 1})
    windows = ", ".join(f"{sizes[name]} of {shape[name]} frames ({name})" for name in sizes)
    parameters = sum(one.numel() for one in task.parameters() if one.requires_grad)
    representation, device = type(task.model.representation).__name__, trainer.strategy.root_device
    lines = {
        "data": _name(data),
        "windows": windows,
        "epoch": f"{batches} batches of {config.data.batch_size} windows, {of_validation} batches in validation",
        "model": f"{representation}, {parameters:,} parameters to train, on {device}",
        "stages": _stages(steps, curriculum, last),
        "a batch": ", ".join(f"{clock.step:.3g} s at S = {length}" for length, clock in clocks.items())
        + f"; a batch of the validation {first.validation:.3g} s",
        "an epoch": ", ".join(
            f"{duration(clock.step * batches + pace.rest)} at S = {length}" for length, clock in clocks.items()
        ),
        "in all": "not known: nothing says when the training ends"
        if left is None
        else f"{left.bound} {duration(left.seconds)}",
        "memory": _memory(task),
    }
    return "\n".join(["dry run, nothing is written", *(f"{name + ':':10} {text}" for name, text in lines.items())])


def _measured(config: DictConfig, task: Any, data: Any, callbacks: list[Any]) -> tuple[_Clock, pl.Trainer]:
    """Train for a few batches with the present S."""
    clock = _Clock()
    trainer = instantiate(
        config.trainer, callbacks=[clock, *callbacks], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, max_epochs=1, limit_train_batches=_BATCHES, limit_val_batches=1,
        default_root_dir=str(Path.cwd()), _convert_="partial",
    )  # fmt: skip
    trainer.fit(task, data)
    return clock, trainer


def _name(data: Any) -> str:
    """The database, or what is made or downloaded if it is not there yet."""
    path = getattr(data, "datapath", "")
    return type(data).__name__ if not path or Path(path).parent == Path.cwd() else str(path)


def _callbacks(trainer: pl.Trainer) -> list[Any]:
    return trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it


def _limited(batches: int, limit: float) -> int:
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def _whole(trainer: pl.Trainer, task: Any, pace: Pace, callbacks: list[Any], max_epochs: int) -> Left | None:
    """Time of the whole training, as at its start."""
    start: Any = SimpleNamespace(
        callbacks=callbacks, current_epoch=0, max_epochs=max_epochs, optimizers=trainer.optimizers,
        lr_scheduler_configs=trainer.lr_scheduler_configs,
    )  # fmt: skip
    return time_left(start, task, pace, done=0.0)


def _stages(steps: int, curriculum: Curriculum | None, last: LastStage | None) -> str:
    if curriculum is None:
        return f"S = {steps}"
    rule = type(curriculum.rule).__name__
    if last is not None and last.possible:
        return f"S = {steps} ({rule}), then {last.epochs} epochs with labels of {last.labels.reference}"
    return (
        f"S = {steps} to {curriculum.max_length} ({rule})" if curriculum.max_length > steps else f"S = {steps} ({rule})"
    )


def _memory(task: pl.LightningModule) -> str:
    process = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB of the process"
    if task.device.type != "cuda":
        return f"{process} at its peak"
    return f"{torch.cuda.max_memory_allocated(task.device) / 2**30:.1f} GiB on the GPU, {process}, at their peak"


def _now(task: pl.LightningModule) -> float:
    if task.device.type == "cuda":
        torch.cuda.synchronize(task.device)
    return time.perf_counter()
