"""Models and trajectories as they are named on the command line."""

from collections.abc import Iterable
from pathlib import Path

from spk_dt.trajectories.readers import READERS, find_reader
from spk_dt.trajectories.readers.compressed import plain_name

__all__ = ["named_inputs", "named_models"]

#: what an evaluation writes beside the folders of its models
_RESERVED = {
    *("start.traj", "settings.json", "metrics.json", "distributions.json", "motion.json", "report.html", "figures"),
    *("force_error.csv", "force_error_by_start.csv", "true_error.csv", "true_error_by_start.csv"),
    *("true_energy_error_by_start.csv", "reference"),
}


def named_inputs(arguments: Iterable[str]) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Models, and trajectories of other programs, under the names that results carry.

    Args:
        arguments: as for `named_models`; what a reader of `spk_dt.trajectories.readers` recognises is a trajectory, named as
            its file without ending where no name is given. Several trajectories may have one name.

    Returns:
        file of each model, and files of each name of trajectories; one of both is empty.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as `named_models`; or if there are both, or a file is neither.
    """
    models: list[str] = []
    trajectories: dict[str, list[Path]] = {}
    for argument in arguments:
        name, path = _split(argument)
        if not _is_trajectory(path):
            models.append(argument)
            continue
        name = name or plain_name(path).stem
        _check_name(name)
        trajectories.setdefault(name, []).append(path)
    if models and trajectories:
        raise ValueError(
            f"'{models[0]}' is a model, '{next(iter(trajectories.values()))[0]}' a trajectory. Models are simulated from "
            "frames of the data, trajectories are judged as they are: make an evaluation of each. The simulations of spkmd "
            "(simulation.hdf5) are trajectories, too, and may stand beside those of other programs."
        )
    return ({} if trajectories else named_models(models)), trajectories


def _is_trajectory(path: Path) -> bool:
    """Whether a file, or folder, is of a format that is read.

    Raises:
        ValueError: if a file is neither that nor a model: a ZIP archive or a pickle of PyTorch, or ``.safetensors``.
    """
    if not path.exists() or (path / "best_model").is_file():
        return False
    if any(reader.recognises(path) for reader in READERS):
        return True
    if path.is_file() and path.suffix != ".safetensors":
        with path.open("rb") as file:
            pickled = file.read(2).startswith((b"PK", b"\x80"))
        if not pickled:
            try:
                find_reader(path)
            except ValueError as error:
                raise ValueError(f"'{path}' is not a SchNetPack model, and as a trajectory: {error}") from None
    return False


def _split(argument: str) -> tuple[str, Path]:
    """Name and path of ``NAME=PATH`` or ``PATH``."""
    name, equals, file = argument.partition("=")
    return ("", Path(argument)) if not equals or Path(argument).exists() else (name, Path(file))


def _check_name(name: str) -> None:
    """Refuse a name that is none of a folder."""
    if not name or name in {".", ".."} or name in _RESERVED or set(name) & set("/\\\0"):
        raise ValueError(f"'{name}' cannot be the name of a model, since results are written to a folder of this name.")


def named_models(arguments: Iterable[str]) -> dict[str, Path]:
    """Models under the names that results carry.

    Args:
        arguments: ``NAME=MODEL`` or ``MODEL``, a file, or the folder of a run with a ``best_model``. Without a name, a
            file ``best_model`` has that of its folder, and any other its own without ending.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if two models have one name, a name is no name for a folder, or there is no model.
    """
    models: dict[str, Path] = {}
    for argument in arguments:
        name, path = _split(argument)
        path = path / "best_model" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no model file '{path}'; spktrain writes 'best_model' into its run folder."
            )
        path = path.resolve()
        name = name or (path.parent.name if path.name == "best_model" else path.stem)
        _check_name(name)
        if name in models:
            raise ValueError(f"two models are called '{name}': {models[name]} and {path}. Give names: {name}_2={path}.")
        models[name] = path
    if not models:
        raise ValueError("give at least one model.")
    return models
