"""A model from its description and tensors, both of which may be made up to do harm.

Only classes of `spk_dt.models.classes` are made, from plain data, and no more numbers are asked for from the system than
the file has, and some for constants: the sizes that the description names must be those of the tensors.
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from spk_dt.models.classes import FUNCTIONS, KNOWN

__all__ = ["build_model"]

#: numbers that a model may have beside its tensors, as of Clebsch-Gordan coefficients and series of radial bases
_CONSTANTS = 2**22
_HIGHEST_LMAX = 6  # the number of Clebsch-Gordan coefficients grows with its sixth power


class _Limit(TorchDispatchMode):
    """Refuses to make tensors when they have more numbers than a limit, all together."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers = self.left = numbers

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], list | tuple) and all(isinstance(n, int) for n in args[0]):
            self._take(math.prod(args[0]), func)  # before there is a tensor of this shape
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, list | tuple) else [made]:
            if isinstance(one, torch.Tensor):
                self._take(
                    one.numel() // 64, func
                )  # of computations with tensors that are there, which are freed again
        return made

    def _take(self, numbers: int, func: Any) -> None:
        self.left -= max(numbers, 0)
        if self.left < 0:
            raise ValueError("the sizes in its description are larger than its tensors")


def build_model(description: Any, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """Make a model.

    Args:
        description: of `spk_dt.models.describe.describe_model`, read from a file.
        tensors: its parameters and buffers.

    Returns:
        the model, in evaluation mode.

    Raises:
        ValueError: if the description names what is not on the list, or does not fit the tensors. Whatever else the
            constructors raise for arguments that make no sense is left as it is.
    """
    numbers = sum(tensor.numel() for tensor in tensors.values())
    largest = max([0, len(tensors), *(n for tensor in tensors.values() for n in tensor.shape)])
    with _Limit(8 * numbers + _CONSTANTS), torch.random.fork_rng([]):
        model = _make(description, "model", max(largest, 128))
    if not isinstance(model, KNOWN["NeuralNetworkPotential"].kind):
        raise ValueError(f"it holds a {type(model).__name__}, not a NeuralNetworkPotential")
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(kinds) == 1:
        model = model.to(next(iter(kinds)))
    _fill(model, tensors)
    model.eval()
    return model


def _make(value: Any, where: str, largest: int) -> Any:
    """An argument, or a module, of its description."""
    if isinstance(value, dict) and "class" in value:
        return _make_module(value, where, largest)
    if isinstance(value, dict) and set(value) == {"function"}:
        if not isinstance(value["function"], str) or value["function"] not in FUNCTIONS:
            raise ValueError(f"{where} is the function {value['function']!r}, which is none of {', '.join(FUNCTIONS)}")
        return FUNCTIONS[value["function"]]
    if isinstance(value, dict):
        return {str(key): _make(inside, f"{where}.{key}", largest) for key, inside in value.items()}
    if isinstance(value, list):
        return [_make(inside, f"{where}[{i}]", largest) for i, inside in enumerate(value)]
    if isinstance(value, int) and not isinstance(value, bool) and not 0 <= value <= largest:
        raise ValueError(f"{where} is {value}, and no tensor in it has such a size")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, which is not a finite number")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{where} is {value!r}, which is neither number nor text")


def _make_module(value: dict[str, Any], where: str, largest: int) -> nn.Module:
    kind = value["class"]
    if not isinstance(kind, str) or kind not in KNOWN:
        raise ValueError(f"{where} is of the class {str(kind)[:80]!r}, which is not on the list: {', '.join(KNOWN)}")
    known = KNOWN[kind]
    given = {key: inside for key, inside in value.items() if key != "class"}
    allowed = set(inspect.signature(known.kind).parameters) | set(known.attributes)
    if unknown := sorted(map(str, set(given) - allowed)):
        raise ValueError(f"{where} has '{unknown[0]}', which {kind} does not take")
    if given.get("lmax", 0) > _HIGHEST_LMAX:
        raise ValueError(f"{where}.lmax is {given['lmax']}, more than {_HIGHEST_LMAX}")
    made = {key: _make(inside, f"{where}.{key}", largest) for key, inside in given.items()}
    attributes = {key: made.pop(key) for key in known.attributes if key in made}
    module = known.kind(**made)
    for key, attribute in attributes.items():
        setattr(module, key, bool(attribute))
    return module


def _fill(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give the parameters and buffers their values.

    A buffer that has the precision of the file is written to, since representations keep the cutoff under a second name.
    """
    shaped = {
        f"{name}.{buffer}"
        for name, module in model.named_modules(remove_duplicate=False)
        for known in KNOWN.values()
        if type(module) is known.kind
        for buffer in known.shaped
    }
    wanted = model.state_dict(keep_vars=True)
    if lacking := sorted(set(wanted) ^ set(tensors)):
        there = "has no tensor" if lacking[0] in wanted else "has a tensor that its model does not have,"
        raise ValueError(f"it {there} '{lacking[0]}'")
    with torch.no_grad():
        for name, own in wanted.items():
            tensor = tensors[name]
            if own.is_floating_point() != tensor.is_floating_point() or tensor.is_complex():
                raise ValueError(f"its tensor '{name}' is of {tensor.dtype}, not {own.dtype}")
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"its tensor '{name}' has numbers that are not finite")
            if name in shaped and 0 < tensor.numel() <= 1024 and tensor.dim() <= 1:
                own.data = tensor.clone()
            elif own.shape != tensor.shape:
                raise ValueError(
                    f"its tensor '{name}' is {list(tensor.shape)}, but its description says {list(own.shape)}"
                )
            elif own.dtype == tensor.dtype:
                own.copy_(tensor)
            else:
                own.data = tensor.clone()
