"""What a stored model must be, and what must be known of it, to become a file for engines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_numbers
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from schnetpack.atomistic import Atomwise
from schnetpack.model import AtomisticModel

from spk_dt.data.partition import SPLIT_FILE
from spk_dt.data.split_file import read_split
from spk_dt.folders.file_hash import file_hash
from spk_dt.labels.unit_check import Unit
from spk_dt.models import is_plain
from spk_dt.models.atomic_energies import added_energies, energy_module
from spk_dt.training.pretrained import model_path, read_model
from spk_dt.training.run_config import RunConfig, read_run_config
from spk_dt.training.same_run import made_with_of
from spk_dt.trajectories.database import elements_of
from spk_dt.units import conversion

__all__ = ["About", "Stored", "certificate_of", "read_for_export", "stated_units", "stored_elements", "training_data"]


@dataclass(frozen=True)
class About:
    """What users of the file shall know of it.

    Args:
        name: of the potential.
        authors: who made it.
        description: in words.
        certificates: folders of `spkdt certify`; what they say of the model goes into the file.
    """

    name: str = ""
    authors: Sequence[str] = ()
    description: str = ""
    certificates: Sequence[Path] = ()


@dataclass(frozen=True)
class Stored:
    """A model that can be exported.

    Args:
        file: its file.
        model: the model.
        energy: the module that makes its energy.
        cutoff: Å.
        n_layers: interactions of its representation, each of which looks one cutoff further.
        length: its unit of length, Å.
        energy_unit: its unit of energy, eV.
        scale: eV, of what its network gives for an atom.
        offsets: [n_elements] eV, added to each atom, by atomic number.
        run: what the config of its run tells.
    """

    file: Path
    model: AtomisticModel
    energy: Atomwise
    cutoff: float
    n_layers: int
    length: float
    energy_unit: float
    scale: float
    offsets: torch.Tensor
    run: RunConfig | None


def read_for_export(path: str | Path, energy_unit: Unit | None, position_unit: Unit | None) -> Stored:
    """Read a stored model, and refuse one that a file for engines cannot express.

    Args:
        path: a ``best_model``, or the folder of its run.
        energy_unit: unit of its energies; None takes what the ``config.yaml`` of its run says.
        position_unit: its unit of length, likewise.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no model, its units are not known, or it has parts that cannot be expressed: inputs beside the
            structure, several modules that make its energy, energies that do not grow with the number of atoms.
    """
    file = model_path(path)
    model = read_model(file).eval()
    energy = energy_module(model, file)
    representation: Any = model.representation
    layers = getattr(representation, "n_interactions", None) or len(getattr(representation, "interactions", ()))
    if not isinstance(layers, int) or layers < 1:
        raise ValueError(
            f"'{file}': {type(representation).__name__} does not say how many interactions it has, so that it is not known "
            "how far an atom sees; give the class an attribute n_interactions."
        )
    if len(getattr(representation, "electronic_embeddings", ()) or ()):
        raise ValueError(f"'{file}' takes total charge or spin, which engines do not give; it cannot be exported.")
    cutoff = float(f"{float(representation.cutoff):.7g}")
    run = read_run_config(file, energy.output_key, cutoff)
    energy_unit, position_unit = stated_units(file, run, energy_unit, position_unit)
    length, ev = conversion(position_unit, "Ang", "length"), conversion(energy_unit, "eV", "energy")
    scale, offsets = added_energies(model, energy.output_key, file)
    return Stored(file, model, energy, cutoff * length, layers, length, ev, ev * scale, ev * offsets, run)


def stated_units(
    file: Path, run: RunConfig | None, energy_unit: Unit | None, position_unit: Unit | None
) -> tuple[Unit, Unit]:
    """Units of energy and length of a model: those that are given, or else those of its run.

    Raises:
        ValueError: if neither says one, or they contradict each other in a file of `spk_dt.models`.
    """
    told = (None, None) if run is None else (run.energy_unit, run.distance_unit)
    if is_plain(file):
        for option, given, unit in zip(("energy", "position"), (energy_unit, position_unit), told, strict=True):
            if given is not None and unit is not None and abs(conversion(given, unit, option) - 1.0) > 1e-6:
                raise ValueError(f"--{option}-unit {given}, but '{file}' says that its unit is {unit}. Leave it out.")
    energy_unit, position_unit = energy_unit or told[0], position_unit or told[1]
    if not energy_unit or not position_unit:
        what, option = ("length", "--position-unit Angstrom") if energy_unit else ("energy", "--energy-unit eV")
        raise ValueError(
            f"the unit of {what} of '{file}' is not known: no config.yaml of its run says it. State it: {option}"
        )
    return energy_unit, position_unit


def stored_elements(file: Path, run: RunConfig | None, named: Sequence[str] = ()) -> list[int]:
    """Atomic numbers of the elements that a model was trained on.

    Args:
        file: the model.
        run: what the config of its run tells.
        named: symbols, which come before what the run tells.

    Raises:
        ValueError: if a symbol is none, or it is not known which they are.
    """
    if named:
        unknown = [symbol for symbol in named if symbol not in atomic_numbers or symbol == "X"]
        if unknown:
            raise ValueError(f"--elements: '{unknown[0]}' is not the symbol of an element; write them as H,C,Pd.")
        return sorted(atomic_numbers[symbol] for symbol in named)
    if told := made_with_of(file).get("elements"):
        return sorted(atomic_numbers[symbol] for symbol in told)
    data = training_data(file, run)
    split = file.with_name(SPLIT_FILE)
    if data is None:
        raise ValueError(
            f"it is not known which elements '{file}' was trained on: the data of its run are no longer where its "
            "config.yaml says. State them: --elements H,C,Pd"
        )
    rows = None
    if split.exists():
        rows = read_split(split).get("train_idx")
    return elements_of(data, rows)


def training_data(file: Path, run: RunConfig | None) -> Path | None:
    """The database that a model was trained on, if it is still where its run says."""
    if run is None or is_plain(file):
        return None
    config = OmegaConf.load(run.file)
    # SchNetPack keeps where spktrain was started only while it runs; run.path is 'runs' there unless it was set
    for place in (file.parents[2], Path.cwd()) if len(file.parents) > 2 else (Path.cwd(),):
        try:
            OmegaConf.update(config, "run.work_dir", str(place))
            path = Path(str(OmegaConf.select(config, "data.datapath")))
        except OmegaConfBaseException:
            continue
        if (found := place / path).is_file():
            return found
    return None


def certificate_of(file: Path, folder: Path) -> Mapping[str, Any]:
    """What a certificate says of a model.

    Args:
        file: the model.
        folder: that `spkdt certify` has written.

    Raises:
        FileNotFoundError: if there is no certificate.
        ValueError: if it is of other models.
    """
    path = folder / "certificate.json"
    if not path.is_file():
        raise FileNotFoundError(f"--certificate: there is no '{path}'; name a folder that spkdt certify has written.")
    content = json.loads(path.read_text())
    hashes = content["settings"].get("model_sha256", {})
    ours = file_hash(file)
    for name, found in content["models"].items():
        if hashes.get(name) == ours:
            conditions = content["settings"]["conditions"]
            return {
                "statement": found["statement"],
                "conditions": conditions,
                "reference": content["settings"]["reference"],
            }
    raise ValueError(f"--certificate: '{path}' is of other models than '{file}' (SHA-256 {ours[:12]}...).")
