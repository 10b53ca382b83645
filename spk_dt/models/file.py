"""One file for a model that runs no code when it is loaded: the weights as safetensors, all else as YAML in its metadata.

The metadata have one entry, `KEY`, with a YAML document: ``version`` of this format, the `Facts`, and ``model``, the classes
and arguments of the model and its parts. The format of tensors is that of https://github.com/huggingface/safetensors.
"""

from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from spk_dt.folders.damage import reading
from spk_dt.folders.plain_yaml import plain_yaml
from spk_dt.folders.whole_file import whole_file
from spk_dt.models.build import build_model
from spk_dt.models.describe import describe_model, differences
from spk_dt.models.facts import Facts
from spk_dt.representation.cutoff import cutoff_of
from spk_dt.units import conversion

__all__ = ["SUFFIX", "is_plain", "read_facts", "read_model_file", "save_model"]

SUFFIX = ".safetensors"
#: entry of the metadata
KEY = "spk_dt_model"
#: of this format; a program reads what is not newer than itself
VERSION = 1

_LONGEST_HEADER = 16 * 2**20  # bytes
_REMEDY = "Get it again from where it comes from, or write it anew with spkdt export."


def is_plain(file: str | Path) -> bool:
    """Whether a file is one of these, by the first bytes of it: the length of a JSON header, and that."""
    with Path(file).open("rb") as stream:
        start = stream.read(9)
    return Path(file).suffix == SUFFIX or (len(start) == 9 and start[8:] == b"{" and start[4:8] == b"\0\0\0\0")


def save_model(model: nn.Module, facts: Facts, out: Path) -> None:
    """Write a model, and see to it that what is read is the same.

    Args:
        model: of SchNetPack.
        facts: what is to be known of it.
        out: file to write.

    Raises:
        FileExistsError: if it is there.
        ValueError: if the model has parts that a file without code cannot hold.
    """
    if out.exists():
        raise FileExistsError(f"'{out}' is there already; remove it, or choose another name.")
    if out.suffix != SUFFIX:
        raise ValueError(f"'{out}': programs know the file by its ending; call it '{out.with_suffix(SUFFIX).name}'.")
    description = describe_model(model)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    text = yaml.safe_dump(
        {"version": VERSION} | facts.plain() | {"model": description}, sort_keys=False, allow_unicode=True, width=120
    )
    with whole_file(out, make_folder=True) as part:
        part.write_bytes(save(tensors, {"format": "pt", KEY: text}))  # save_file lets nobody else read it
        if lost := list(differences(model.cpu(), _read(part)[0])):
            raise ValueError(
                f"the model would not be the same when it is read: {'; '.join(lost[:3])}. It is not written; keep it as "
                "'best_model'."
            )


def read_model_file(file: str | Path) -> tuple[nn.Module, Facts]:
    """Read a model and what is to be known of it; no code of the file is run, whatever is in it.

    Args:
        file: that `save_model` has written.

    Raises:
        ValueError: if it is damaged, of a newer version, names what is not on the list, or contradicts itself.
    """
    file = Path(file)
    with reading(file, "model of spk_dt", _REMEDY):
        return _read(file)


def read_facts(file: str | Path) -> Facts:
    """What a file says of its model, without making it.

    Args:
        file: that `save_model` has written.

    Raises:
        ValueError: if it is damaged or of a newer version.
    """
    file = Path(file)
    with reading(file, "model of spk_dt", _REMEDY), _opened(file) as content:
        return Facts.of(_document(content))


def _read(file: Path) -> tuple[nn.Module, Facts]:
    with _opened(file) as content:
        document = _document(content)
        facts = Facts.of(document)
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - it is no dictionary
    for unit, like, what in ((facts.energy_unit, "eV", "energy"), (facts.distance_unit, "Ang", "length")):
        conversion(unit, like, f"its unit of {what}")
    model: Any = build_model(document.get("model"), tensors)
    cutoff: float = cutoff_of(model)
    if abs(cutoff - facts.cutoff) > 1e-5 * cutoff:
        raise ValueError(f"it says that its cutoff is {facts.cutoff:g}, but that of its model is {cutoff:g}")
    if sorted(facts.outputs) != sorted(model.model_outputs):
        raise ValueError(
            f"it says that its outputs are {facts.outputs}, but those of its model are {model.model_outputs}"
        )
    return model, facts


def _opened(file: Path) -> Any:
    """The file, if its header is not longer than a header of a model."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if length > min(_LONGEST_HEADER, file.stat().st_size):
        raise ValueError(f"its header would have {length} bytes")
    return safe_open(str(file), framework="pt")


def _document(content: Any) -> dict[str, Any]:
    """The YAML document in the metadata."""
    text = (content.metadata() or {}).get(KEY)
    if text is None:
        raise ValueError(f"its metadata have no '{KEY}': it holds tensors, but not what model they are of")
    document = plain_yaml(text, "its description")
    if not isinstance(document, dict):
        raise ValueError("its description is no mapping")
    if (version := document.get("version")) != VERSION:
        raise ValueError(f"it is of version {str(version)[:20]} of the format, and this program reads {VERSION}")
    return document
