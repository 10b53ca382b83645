"""The code released with the paper (IZugec/DTEGNN), run as it is from a clone.

Nothing of it is copied or changed: its own data class makes its batches, its own `Trainer.train` trains, validates,
and its own `dynamics` simulates. What is measured is bracketed by the loader that is handed to its trainer, which
looks at the clock when it gives a batch and when it is asked for the next. So a step of its training is: gradients to
zero, forward, S - 1 steps of velocity Verlet with the neighbours of the first frame, loss, errors per element as
numbers, backward, clip, Adam; checkpoints, the making of the data set and wandb are outside.

It needs torch_geometric and pymatgen beside our own environment. wandb and torch_scatter, which it imports but does
not use here (torch_geometric sums with torch), are replaced by empty modules where they are missing.
"""

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from ase import Atoms
from omegaconf import DictConfig

from benchmarks.models import calm
from benchmarks.timing import Clock

__all__ = ["COMMIT", "Reference", "ReferenceSteps"]

#: of https://github.com/IZugec/DTEGNN that this was written for
COMMIT = "d99eb9d"


class Reference:
    """Their code, imported from a clone, with a model of the size that a config of ours names.

    Args:
        path: the clone.
        config: of `benchmarks.models.composed`.
        elements: number of elements in the data.
        seed: of the weights.

    Raises:
        FileNotFoundError: if there is no clone at `path`.
        ModuleNotFoundError: if a package that it needs is missing.
    """

    def __init__(self, path: str | Path, config: DictConfig, elements: int = 3, seed: int = 0) -> None:
        path = Path(path).resolve()
        if not (path / "dtegnn" / "training" / "Trainer.py").exists():
            raise FileNotFoundError(f"'{path}' is no clone of github.com/IZugec/DTEGNN")
        _import(path)
        settings = config.model.representation
        self.args = SimpleNamespace(
            cutoff=float(config.globals.cutoff),
            depth=settings.n_interactions,
            emb_dim=settings.n_atom_basis,
            RFF_dim=settings.radial_basis.n_rbf,
            RFF_sigma=settings.radial_basis.sigma,
            lr=float(config.globals.lr),
            lr_decay=0.33, lr_min=2.0e-6, lr_reset=1.0e-4, patience=15,
            first_term=config.task.first_step_weight,
            neigh_factor=1,
            checkpoint_interval=1, keep_n_checkpoints=1,
            wandb_logging=False,
            atom_types_map={i: str(i) for i in range(elements)},
        )  # fmt: skip
        self.seed = seed

    def model(self) -> torch.nn.Module:
        """Their EGNN, of example.yml but for its size."""
        torch.manual_seed(self.seed)
        network = import_module("dtegnn.model.nn.networks").EGNN
        model = network(
            depth=self.args.depth,
            hidden_features=self.args.emb_dim,
            node_features=len(self.args.atom_types_map),
            out_features=1,
            norm="layer",
            RFF_dim=self.args.RFF_dim,
            RFF_sigma=self.args.RFF_sigma,
        )
        calm(model.pred)
        return model

    def batch(self, windows: Sequence[Sequence[Atoms]], validate: bool = False):
        """Windows as their batch, with neighbours by pymatgen, as their `DatasetCreator` makes it."""
        data_class = import_module("dtegnn.data.EGNNClass").EGNNClass
        collate = import_module("torch_geometric.data.batch").Batch.from_data_list
        options = {"validation": True} if validate else {"neigh_factor": self.args.neigh_factor}
        return collate(
            [
                data_class(atoms=list(atoms), N=len(atoms), cutoff=self.args.cutoff, potim=0.5, **options)[0]
                for atoms in windows
            ]
        )

    def dynamics(self, model: torch.nn.Module, systems: Sequence[Atoms], n_steps: int, device: str = "cpu") -> None:
        """Their simulation: of all systems at once, neighbours by pymatgen at each step."""
        simulate = import_module("dtegnn.utils.Simulate").dynamics
        simulate(model, n_steps, 0.5, list(systems), self.args, torch.device(device))


class ReferenceSteps:
    """Training steps, or validations, of their trainer; a call returns the seconds of one.

    Args:
        reference: their code.
        windows: [n_systems][n_frames] structures of the batch.
        n_steps: S, or the steps of a validation.
        clock: what time is read from.
        validate: measure a validation; the training of its epoch is then a single system, and not counted.
    """

    def __init__(
        self,
        reference: Reference,
        windows: Sequence[Sequence[Atoms]],
        n_steps: int,
        clock: Clock,
        validate: bool = False,
    ) -> None:
        self._device = clock.device
        self._folder = tempfile.TemporaryDirectory()
        windows = [window[:n_steps] for window in windows]
        length = 1 if validate else n_steps
        args = SimpleNamespace(**vars(reference.args))
        args.modelpath = self._folder.name
        args.N_train, args.N_val = length, n_steps
        args.check_val = 1 if validate else 10**9
        train = reference.batch([window[:1] for window in windows[:1]] if validate else windows)
        loaders = [_Watched(train, clock), _Watched(reference.batch(windows, True), clock) if validate else None]
        self._watched = loaders[validate]
        self._args = args
        loss = import_module("dtegnn.utils.Loss").ScaledLoss(args.atom_types_map)
        self._trainer = import_module("dtegnn.utils.PrepareTrainer").get_trainer(
            args, reference.model(), loss, *loaders
        )
        self._trainer.counter = length - 1  # the stage: S = counter + 1

    def __call__(self) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._trainer.train(self._device, self._args, n_epochs=1)
        return self._watched.seconds

    def close(self) -> None:
        """Remove its checkpoints."""
        self._folder.cleanup()


class _Watched:
    """A loader of one batch that knows how long its user took."""

    def __init__(self, batch, clock: Callable[[], float]) -> None:
        self.batch, self.clock = batch, clock
        self.seconds = float("nan")

    def __iter__(self) -> Iterator:
        batch = self.batch.clone()
        start = self.clock()
        yield batch
        self.seconds = self.clock() - start


def _import(path: Path) -> None:
    missing = [name for name in ("torch_geometric", "pymatgen") if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"the reference code needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("torch_geometric")  # looks for torch_scatter itself, and must not see a stand-in
        for name in ("wandb", "torch_scatter"):
            if name not in sys.modules and find_spec(name) is None:
                sys.modules[name] = ModuleType(name)
                sys.modules[name].scatter = None
        if str(path) not in sys.path:
            sys.path.append(str(path))
        import_module("dtegnn")
    logging.getLogger("dtegnn").setLevel(logging.ERROR)
