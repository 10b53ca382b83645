"""Writes models as files that run no code when they are loaded (`spk_dt.models`)."""

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from spk_dt.export.stored import About, certificate_of, stated_units, stored_elements, training_data
from spk_dt.folders.file_hash import file_hash
from spk_dt.labels.unit_check import Unit
from spk_dt.models import Facts, is_plain, read_facts, save_model
from spk_dt.representation.cutoff import cutoff_of
from spk_dt.training.pretrained import model_path, read_model
from spk_dt.training.run_config import read_run_config
from spk_dt.training.same_run import made_with_of

__all__ = ["export_plain"]

log = logging.getLogger(__name__)


def export_plain(
    model_file: str | Path,
    out: str | Path,
    energy_unit: Unit | None = None,
    position_unit: Unit | None = None,
    elements: Sequence[str] = (),
    told: About | None = None,
) -> Facts:
    """Write a stored model as one file without code, which gives the same numbers to the last bit.

    Args:
        model_file: a ``best_model``, the folder of its run, or such a file, to which something is added.
        out: file to write, ``.safetensors``.
        energy_unit: unit of its energies; None takes what its run says.
        position_unit: its unit of length, likewise.
        elements: symbols of the elements that it was trained on; none takes those of the training data, as far as they are
            known.
        told: name (without it that of the run folder), authors, description, certificates.

    Returns:
        what the file says.

    Raises:
        FileExistsError: if `out` is there.
        FileNotFoundError: if the model or a certificate is not.
        ValueError: if a file without code cannot hold the model, its units are not known, or a certificate is of another
            model.
    """
    told, file = told or About(), model_path(model_file)
    model = read_model(file).eval()
    run = read_run_config(file, "energy", None)
    energy, length = stated_units(file, run, energy_unit, position_unit)
    known = made_with_of(file)
    before = read_facts(file) if is_plain(file) else None
    try:
        symbols = [chemical_symbols[number] for number in stored_elements(file, run, elements)]
    except ValueError as error:
        if elements:
            raise
        log.warning("%s", error)
        symbols = []
    data = training_data(file, run)
    facts = Facts(
        name=told.name or (before.name if before else file.parent.name if file.name == "best_model" else file.stem),
        energy_unit=str(energy),
        distance_unit=str(length),
        cutoff=float(f"{cutoff_of(model):.7g}"),
        outputs=sorted(model.model_outputs),
        elements=symbols,
        time_step_fs=[float(step) for step in known.get("time step of the data in fs", ())],
        loss=[str(one) for one in known.get("loss", ())],
        reference=_as_mapping(known.get("reference method of the data")),
        authors=list(told.authors) or (before.authors if before else []),
        description=told.description or (before.description if before else ""),
        training_data={"name": data.name, "sha256": file_hash(data)}
        if data
        else before.training_data
        if before
        else {},
        made_from={"name": file.name, "sha256": file_hash(file)},
        made_by={package: version(package) for package in ("spk_dt", "schnetpack", "torch")},
        certificates=[
            *(before.certificates if before else ()),
            *(dict(certificate_of(file, one)) for one in told.certificates),
        ],
    )
    save_model(model, facts, Path(out))
    return facts


def _as_mapping(reference: Any) -> dict[str, Any]:
    if reference is None:
        return {}
    return dict(reference) if isinstance(reference, Mapping) else {"reference": str(reference)}
