"""All that the processes of one training say to each other, beside the gradients, which Lightning's strategy averages.

Each function is called by all processes in the same order, or by the only one there is, for which it costs nothing. The
messages go over connections of their own (gloo, between processors), without a time limit: while the first process runs
simulations and reference calculations, the others wait for hours. If a process ends, the others learn of it at once.
"""

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed

__all__ = [
    "any_of",
    "by_first",
    "gathered",
    "largest",
    "number",
    "rank",
    "refuse_other_folders",
    "same_seed",
    "seed",
    "total",
]

log = logging.getLogger(__name__)

_FOR_EVER = timedelta(days=365)

#: read by what shuffles in each epoch
_SEED = "PL_GLOBAL_SEED"


class _Connections(NamedTuple):
    """Those of our own, beside those of the training that they were made for."""

    world: Any
    own: Any


_connections: _Connections | None = None


class _Failed(NamedTuple):
    """What the first process has raised."""

    error: BaseException


def number() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is; the first is 0."""
    return distributed.get_rank() if number() > 1 else 0


def by_first[T](compute: Callable[[], T]) -> T:
    """Let the first process compute, and all have the result, or the error; the others wait as long as it takes.

    Args:
        compute: gives something that can be pickled.
    """
    if number() == 1:
        return compute()
    found: list[Any] = [None]
    if rank() == 0:
        try:
            found = [compute()]
        except BaseException as error:
            distributed.broadcast_object_list([_Failed(_sendable(error))], src=0, group=_group())
            raise
    distributed.broadcast_object_list(found, src=0, group=_group())
    if isinstance(found[0], _Failed):
        raise found[0].error
    result: T = found[0]
    return result


def gathered[T](value: T) -> list[T]:
    """The values of all processes, in their order; they must be such that they can be pickled."""
    if number() == 1:
        return [value]
    found: list[Any] = [None] * number()
    distributed.all_gather_object(found, value, group=_group())
    return found


def total(values: torch.Tensor) -> torch.Tensor:
    """Sum over processes of a tensor of the same shape in each."""
    return _reduced(values, distributed.ReduceOp.SUM) if number() > 1 else values


def largest(value: float) -> float:
    """The largest of the values of all processes."""
    if number() == 1:
        return value
    return float(_reduced(torch.tensor(value, dtype=torch.float64), distributed.ReduceOp.MAX))


def any_of(condition: bool) -> bool:
    """Whether the condition holds in any process."""
    return largest(float(condition)) > 0.0 if number() > 1 else condition


def seed() -> int:
    """Of the training, after `same_seed` the same in all processes."""
    return int(os.environ.get(_SEED, 0))


def same_seed() -> None:
    """Let all processes shuffle as the first one does; without ``seed`` each has drawn its own."""
    drawn = by_first(lambda: os.environ.get(_SEED))
    if drawn is not None:
        os.environ[_SEED] = drawn


def refuse_other_folders() -> None:
    """Refuse a training whose processes work in several folders.

    Raises:
        ValueError: in all of them.
    """
    here = str(Path.cwd())
    folders = list(dict.fromkeys(gathered(here)))
    if len(folders) > 1:
        raise ValueError(
            f"the {number()} processes of one training work in several folders, '{folders[0]}' and '{folders[1]}': "
            "name the run, as with run.id=first, and start all of them in one folder, which all computers see."
        )


def _group() -> Any:
    """Our own connections."""
    global _connections
    world = distributed.group.WORLD
    if _connections is None or _connections.world is not world:
        _connections = _Connections(world, distributed.new_group(backend="gloo", timeout=_FOR_EVER))
    return _connections.own


def _reduced(values: torch.Tensor, how: Any) -> torch.Tensor:
    found = values.detach().cpu().clone()
    distributed.all_reduce(found, how, group=_group())
    return found.to(values.device)


def _sendable(error: BaseException) -> BaseException:
    """An error of the same kind, or else of the next kind above, that can be sent."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        kind = next(one for one in type(error).__mro__ if one.__module__ == "builtins")
        return kind(*map(str, error.args))
    return error
