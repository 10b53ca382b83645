"""A model in words, and whether two models are the same."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from spk_dt.models.classes import FUNCTIONS, KNOWN
from spk_dt.representation.chebyshev import ChebyshevSeries

__all__ = ["describe_model", "differences"]

_NAMES = {known.kind: name for name, known in KNOWN.items()}
_FUNCTION_NAMES = {function: name for name, function in FUNCTIONS.items()}

#: attributes that training sets and no prediction reads, or that hold what is compared elsewhere
_NOT_COMPARED = {
    *("training", "_mean_initialized", "_atomrefs_initialized", "_initialized", "estimate_atomref", "spk_version"),
    *("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_is_full_backward_hook"),
    *("weight_init", "bias_init"),
}


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Class and arguments of a model and its parts, as plain data.

    Args:
        model: the model.

    Raises:
        ValueError: if it has a part of a class that is not on the list of `spk_dt.models.classes`.
    """
    return {key: _described(value, f"the model.{key}") for key, value in _arguments(model, "the model").items()}


def _arguments(module: nn.Module, where: str) -> dict[str, Any]:
    if (kind := _NAMES.get(type(module))) is None:
        raise ValueError(
            f"{where} is a {type(module).__module__}.{type(module).__qualname__}, which a file without code cannot hold; it "
            f"can hold {', '.join(sorted(_NAMES.values()))}. Keep this model as 'best_model'."
        )
    known = KNOWN[kind]
    try:
        arguments = known.arguments(module)
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError(
            f"{where} is a {kind} that has been changed ({error}). Keep this model as 'best_model'."
        ) from error
    arguments |= {name: getattr(module, name) for name in known.attributes if name in vars(module)}
    return {"class": kind} | arguments


def _described(value: Any, where: str) -> Any:
    """Modules become their descriptions, functions their names."""
    if isinstance(value, nn.Module):
        return {key: _described(inside, f"{where}.{key}") for key, inside in _arguments(value, where).items()}
    if isinstance(value, list | tuple):
        return [_described(inside, f"{where}[{i}]") for i, inside in enumerate(value)]
    if isinstance(value, dict):
        return {str(key): _described(inside, f"{where}.{key}") for key, inside in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value) and value in _FUNCTION_NAMES:
        return {"function": _FUNCTION_NAMES[value]}
    raise ValueError(
        f"{where} is {value!r}, which a file without code cannot hold; functions may be {', '.join(FUNCTIONS)}. Keep "
        "this model as 'best_model'."
    )


def differences(one: nn.Module, other: nn.Module) -> Iterator[str]:
    """Where two models differ in what makes their predictions: classes, attributes, tensors to the last bit.

    Args:
        one: a model.
        other: another one.
    """
    ours, theirs = dict(one.named_modules(remove_duplicate=False)), dict(other.named_modules(remove_duplicate=False))
    yield from sorted(set(ours) ^ set(theirs))
    for name in (name for name in ours if name in theirs):
        a, b = ours[name], theirs[name]
        if type(a) is not type(b):
            yield f"{name or 'model'}: {type(a).__name__} and {type(b).__name__}"
            continue
        for kind in ("_parameters", "_buffers"):
            yield from _different(f"{name}.", getattr(a, kind), getattr(b, kind))
        yield from _different(f"{name}.", _compared(a), _compared(b))


def _compared(module: nn.Module) -> dict[str, Any]:
    return {
        key: value for key, value in vars(module).items() if key not in _NOT_COMPARED and not _empty_hooks(key, value)
    }


def _empty_hooks(key: str, value: Any) -> bool:
    return "hook" in key and not value


def _different(where: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    for key in sorted(set(ours) | set(theirs)):
        a, b = ours.get(key), theirs.get(key)
        if not _equal(a, b):
            yield f"{where}{key}: {_short(a)} and {_short(b)}"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.detach().cpu(), b.detach().cpu())
    if isinstance(a, ChebyshevSeries) and isinstance(b, ChebyshevSeries):
        return True  # it is found anew from the basis and the cutoff, which are compared
    if isinstance(a, list) and isinstance(b, list) and all(isinstance(x, str) for x in (*a, *b)):
        return sorted(a) == sorted(b)  # SchNetPack makes some from sets
    return type(a) is type(b) and bool(a == b)


def _short(value: Any) -> str:
    return f"tensor {list(value.shape)} of {value.dtype}" if isinstance(value, torch.Tensor) else repr(value)[:80]
