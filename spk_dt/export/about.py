"""What a file holds, without running anything of it."""

import json
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors import safe_open

from spk_dt.folders.damage import reading
from spk_dt.models import is_plain, read_facts
from spk_dt.models.file import KEY
from spk_dt.training.pretrained import model_path
from spk_dt.training.same_run import made_with_of, made_with_of_checkpoint
from spk_dt.trajectories.contents import contents

__all__ = ["about"]

#: packages whose classes models and checkpoints are made of
_KNOWN = (
    "collections",
    "numpy",
    "omegaconf",
    "pytorch_lightning",
    "schnetpack",
    "spk_dt",
    "torch",
    "torchmetrics",
)
#: what else plain data are made of
_PLAIN = {
    "_codecs.encode",
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in ("set", "dict", "list", "slice", "object")
    ),
}


def about(path: str | Path) -> str:
    """What a file of a model, a checkpoint, a trajectory database or a certificate holds, as YAML text.

    Args:
        path: the file, or the folder of a run, whose ``best_model`` is taken.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is damaged, or of a kind that is not known.
    """
    file = model_path(path) if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file '{file}'.")
    with reading(file, "file of this kind", "Get it again from where it comes from."):
        with file.open("rb") as stream:
            start = stream.read(16)
        if start.startswith(b"SQLite format 3\0"):
            found: dict[str, Any] = {"kind": "trajectory database"} | contents(file)
        elif is_plain(file):
            found = _plain(file)
        elif zipfile.is_zipfile(file):
            found = _pickled(file)
        elif start.lstrip()[:1] == b"{":
            found = _certificate(file)
        else:
            raise ValueError("it is none of: model, checkpoint, trajectory database, certificate")
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120)


def _plain(file: Path) -> dict[str, Any]:
    facts = read_facts(file)
    with safe_open(str(file), framework="pt") as content:
        shapes = [content.get_slice(name).get_shape() for name in content.keys()]  # noqa: SIM118 - it is no dictionary
        document = yaml.safe_load(content.metadata()[KEY])
    return {
        "kind": "model that runs no code when it is loaded",
        **facts.plain(),
        "tensors": len(shapes),
        "numbers": int(sum(np.prod(shape) for shape in shapes)),
        "model": document.get("model"),
    }


def _pickled(file: Path) -> dict[str, Any]:
    """What a file of `torch.save` names; loading it may call any of it."""
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if not names:
            raise ValueError("it is an archive, but none of torch.save")
        member = archive.getinfo(names[0])
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is compressed, which no file of torch.save is")
        data = archive.read(member)
    named = set()
    last: list[str] = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            named.add(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            named.add(".".join(last[-2:]))
        elif "UNICODE" in opcode.name:
            last = [*last[-1:], str(argument)]
    others = sorted(name for name in named if name.split(".")[0] not in _KNOWN and name not in _PLAIN)
    return {
        "kind": "pickle of torch.save, which runs code when it is loaded",
        "names": len(named),
        "names_of_other_packages": others or "none; this is no proof that it is harmless",
        "made_with": made_with_of_checkpoint(file) or made_with_of(file) or "not known",
    }


def _certificate(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text())
    if not isinstance(content, dict) or not isinstance(content.get("models"), dict):
        raise ValueError("it is JSON, but no certificate")
    return {
        "kind": "certificate",
        "models": {name: found.get("statement") for name, found in content["models"].items()},
        "conditions": content.get("settings", {}).get("conditions"),
    }
