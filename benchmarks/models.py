"""Models and tasks, composed from the product's configs as `spktrain` composes them, and steps of their training."""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from threading import Semaphore, Thread

import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from pytorch_lightning import Callback, LightningDataModule
from schnetpack import AtomisticTask
from schnetpack.utils import str2class

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schnetpack.cli  # noqa: F401 - registers the resolvers of its configs

from benchmarks.systems import datapath

__all__ = ["MODELS", "LightningSteps", "calm", "composed", "data_of", "task_of"]

_GAUSSIAN = ("model/representation/radial_basis=gaussian", "model.representation.radial_basis.n_rbf=20")

_SIZE = ("model.representation.n_atom_basis", "model.representation.n_interactions")

#: model of the same width and depth -> overrides of the experiment `dt_egnn_paper`
MODELS: dict[str, tuple[str, ...]] = {
    "EGNN": (),
    "PaiNN": ("model/representation=painn", *_GAUSSIAN),
    "SchNet": ("model/representation=schnet", *_GAUSSIAN),
}


def composed(*overrides: str, model: str = "EGNN") -> DictConfig:
    """The config of a training run of the paper's model, or one of its size.

    Args:
        overrides: further overrides; those of the model, but for its size, hold for the EGNN alone.
        model: name in `MODELS`.
    """
    size = [f"{_SIZE[0]}=128", f"{_SIZE[1]}=3"]
    ours = [
        "experiment=dt_egnn_paper",
        "globals.lr=1e-5",  # steps cost what they cost at any rate, and atoms stay where they are
        f"data.datapath={datapath()}",
        "data.check_data=false",
        "data.max_memory_gb=0",  # mapped, so that the frames do not count as memory of the model
        "++data.split_file=null",
    ]
    if model != "EGNN":
        overrides = [text for text in overrides if text.startswith(_SIZE) or not text.lstrip("+~").startswith("model")]
    with warnings.catch_warnings(), initialize_config_module("schnetpack.configs", version_base="1.2"):
        warnings.simplefilter("ignore")
        return compose("train", overrides=[*ours, *MODELS[model], *size, *overrides])


def data_of(config: DictConfig) -> LightningDataModule:
    """The data module, ready."""
    datamodule = instantiate(config.data, train_sampler_cls=None)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def task_of(config: DictConfig, seed: int = 0, stock: bool = False) -> AtomisticTask:
    """The task with a new model.

    Args:
        config: of `composed`.
        seed: of the weights.
        stock: SchNetPack's own task in place of that of the config; it knows single frames only.
    """
    settings = config.task.copy()
    if stock:
        known = {"outputs", "_convert_", *inspect.signature(AtomisticTask).parameters}
        with open_dict(settings):
            settings["_target_"] = "schnetpack.AtomisticTask"
            for key in set(settings) - known - {"_target_"}:
                del settings[key]
            for output in settings.outputs:  # ours know elements and sizes, which this task does not tell them
                output["_target_"] = "schnetpack.task.ModelOutput"
    torch.manual_seed(seed)
    model = instantiate(config.model)
    calm(model.output_modules)
    # the scheduler acts between epochs, of which there are none here
    return instantiate(settings, model=model, optimizer_cls=str2class(settings.optimizer_cls), scheduler_cls=None)


def calm(readout: torch.nn.Module) -> None:
    """Make the forces of an untrained model small, so that atoms in rollouts move as in the data and not far apart.

    Args:
        readout: the layers that make energies from features.
    """
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter *= 0.01


class _Endless:
    """A loader that gives copies of the same batch."""

    def __init__(self, batch: Mapping[str, torch.Tensor]) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield {key: value.clone() for key, value in self.batch.items()}


class _Turns(Callback):
    """Holds the trainer after every batch until it is asked for the next."""

    def __init__(self) -> None:
        self.go, self.done = Semaphore(0), Semaphore(0)
        self.over = False

    def _hold(self, trainer) -> None:
        self.done.release()
        self.go.acquire()
        if self.over:
            raise _Over

    def on_train_start(self, trainer, task) -> None:
        self._hold(trainer)

    def on_validation_start(self, trainer, task) -> None:
        self._hold(trainer)

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx) -> None:
        self._hold(trainer)

    def on_validation_batch_end(self, trainer, task, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self._hold(trainer)


class _Over(Exception):
    """No more steps are wanted."""


class LightningSteps:
    """Steps of a real `Trainer.fit` or `Trainer.validate`, one per call.

    The trainer runs in a thread of its own that waits between batches, so steps of several trainers can be made in turn and
    each is all that Lightning does for a batch. Callbacks and loggers of the config are left out.

    Args:
        task: what to run.
        datamodule: the data module, which transforms of the model may want to see.
        batch: the batch of every step.
        config: for the trainer.
        device: cpu or cuda.
        validate: free rollouts instead of training.
    """

    def __init__(
        self,
        task: AtomisticTask,
        datamodule: LightningDataModule,
        batch: Mapping[str, torch.Tensor],
        config: DictConfig,
        device: str = "cpu",
        validate: bool = False,
    ) -> None:
        self._turns = _Turns()
        self._error: BaseException | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._trainer = instantiate(
                config.trainer,
                accelerator="gpu" if device.startswith("cuda") else "cpu",
                callbacks=[self._turns],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                limit_train_batches=10**9,
                limit_val_batches=10**9 if validate else 0,
            )
        loader, program = _Endless(batch), self._trainer.validate if validate else self._trainer.fit
        view = _View(datamodule, loader)
        self._thread = Thread(target=self._run, args=(program, task, view), daemon=True)
        self._thread.start()
        self._wait()

    def __call__(self) -> None:
        """One step."""
        self._turns.go.release()
        self._wait()

    def close(self) -> None:
        """End the trainer and free what it holds."""
        self._turns.over = True
        self._turns.go.release()
        self._thread.join()

    def _run(self, program, task, datamodule) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program(task, datamodule=datamodule)
        except _Over:
            pass
        except BaseException as error:  # handed to the thread that asked for the step
            self._error = error
        self._turns.done.release()

    def _wait(self) -> None:
        self._turns.done.acquire()
        if self._error is not None:
            raise self._error


class _View(LightningDataModule):
    """A data module with another loader."""

    def __init__(self, datamodule: LightningDataModule, loader: _Endless) -> None:
        super().__init__()
        self._datamodule, self._loader = datamodule, loader

    def __getattr__(self, name: str):
        return getattr(self.__dict__["_datamodule"], name)

    def train_dataloader(self) -> _Endless:
        return self._loader

    def val_dataloader(self) -> _Endless:
        return self._loader
