"""Models as they are named on the command line."""

from collections.abc import Iterable
from pathlib import Path

__all__ = ["named_models"]

#: what an evaluation writes beside the folders of its models
_RESERVED = {
    *("start.traj", "settings.json", "metrics.json", "distributions.json", "motion.json", "report.html", "figures"),
    *("force_error.csv", "force_error_by_start.csv", "true_error.csv", "true_error_by_start.csv"),
    *("true_energy_error_by_start.csv", "reference"),
}


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
        name, equals, file = argument.partition("=")
        if not equals or Path(argument).exists():
            name, file = "", argument
        path = Path(file) / "best_model" if Path(file).is_dir() else Path(file)
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no model file '{path}'; spktrain writes 'best_model' into its run folder."
            )
        path = path.resolve()
        name = name or (path.parent.name if path.name == "best_model" else path.stem)
        if not name or name in {".", ".."} or name in _RESERVED or set(name) & set("/\\\0"):
            raise ValueError(
                f"'{name}' cannot be the name of a model, since results are written to a folder of this name."
            )
        if name in models:
            raise ValueError(f"two models are called '{name}': {models[name]} and {path}. Give names: {name}_2={path}.")
        models[name] = path
    if not models:
        raise ValueError("give at least one model.")
    return models
