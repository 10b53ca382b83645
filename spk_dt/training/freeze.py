"""Parts of a model that training leaves as they are."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

__all__ = ["freeze"]


def freeze(model: nn.Module, names: str | Sequence[str]) -> list[str]:
    """Let parameters of parts of a model need no gradient, so that optimisers do not change them.

    Args:
        model: the model.
        names: names of submodules or parameters, also with wildcards: ``representation.interactions.*``.

    Returns:
        names of the parameters that are frozen.

    Raises:
        ValueError: if a name fits no part with parameters, or nothing is left to be trained.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    patterns = [names] if isinstance(names, str) else list(names)
    frozen = []
    for pattern in patterns:
        fitting = [name for name in parameters if any(fnmatchcase(part, pattern) for part in _parts(name))]
        if not fitting:
            raise ValueError(
                f"freeze: no part of the model with parameters is called '{pattern}'. There are "
                f"{', '.join(_outline(parameters))}, and what is in them; wildcards (*) are allowed."
            )
        frozen += fitting
    for name in frozen:
        parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ValueError(f"freeze={patterns} freezes all parameters of the model; leave some to be trained.")
    return list(dict.fromkeys(frozen))


def _parts(name: str) -> list[str]:
    """Name of a parameter, and of the modules that it belongs to: ``a.b.weight``, ``a.b``, ``a``."""
    words = name.split(".")
    return [".".join(words[:n]) for n in range(len(words), 0, -1)]


def _outline(parameters: Iterable[str]) -> list[str]:
    """Names of parts with parameters, not deeper than the members of lists such as ``representation.interactions.0``."""
    return list(dict.fromkeys(".".join(name.split(".")[:-1][:3]) or name for name in parameters))
