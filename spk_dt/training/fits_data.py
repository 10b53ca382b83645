"""Does a trained model fit the data that it is to be trained on? Its elements, its units, and the zero of its energies."""

import logging
from collections.abc import Mapping

import numpy as np
import torch
from ase.data import chemical_symbols
from schnetpack import properties
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.model import AtomisticModel
from schnetpack.transform import AddOffsets, MatScipyNeighborList

from spk_dt.data.fixed_forces import held_forces
from spk_dt.data.windows import TrajectoryWindows
from spk_dt.labels.unit_check import ENERGY_UNITS, POSITION_UNITS, Agreement, Unit, agreement
from spk_dt.properties import counted_forces
from spk_dt.training.pretrained import Pretrained
from spk_dt.trajectories.frames import Frames
from spk_dt.units import conversion

__all__ = ["check_elements", "check_forces"]

log = logging.getLogger(__name__)

#: energy per atom by which data may lie off before a warning, eV
_ENERGY_SHIFT = 0.1


def check_elements(model: AtomisticModel, known: Pretrained, frames: Frames) -> None:
    """Refuse elements beyond the weights of a model; warn of those whose reference energy it does not know.

    Args:
        model: the model.
        known: what is known of it.
        frames: the data.

    Raises:
        ValueError: if there are no weights for an element.
    """
    present = np.unique(np.concatenate(frames.atomic_numbers))
    tables = [m.atomref for m in model.postprocessors if isinstance(m, AddOffsets) and m.add_atomrefs]
    embedding = getattr(model.representation, "embedding", None)
    size = min([getattr(embedding, "num_embeddings", len(chemical_symbols)), *map(len, tables)])
    beyond = [chemical_symbols[z] for z in present if z >= size]
    if beyond:
        raise ValueError(
            f"'{frames.source}' has {', '.join(beyond)}, but '{known.file}' has weights for elements up to "
            f"{chemical_symbols[size - 1]} (Z = {size - 1}) only."
        )
    for table in tables:
        unknown = [chemical_symbols[z] for z in present if not bool(table[z].any())]
        if unknown and bool(table.any()):
            log.warning("'%s' has no atomic reference energy of %s; has it seen them?", known.file, ", ".join(unknown))


def check_forces(model: AtomisticModel, known: Pretrained, frames: Frames, chosen: np.ndarray) -> None:
    """Compare a model with the data at some frames.

    Refuses a model whose forces agree with the data in other units than those of the data. A model that is bad in all units
    only deserves a warning, as do energies with another zero.

    Args:
        model: the model, in training mode.
        known: what is known of it.
        frames: the data, in the units that the model should have.
        chosen: [n] indices of the frames to compare at.

    Raises:
        ValueError: if the model has other units.
    """
    energy_unit, distance_unit = frames.units[properties.energy], frames.distance_unit
    in_eV, in_Ang = conversion(energy_unit, "eV", "energy"), conversion(distance_unit, "Ang", "distance")
    windows = TrajectoryWindows(frames, chosen, 1, counted_forces=held_forces(frames))
    samples = [windows[i] for i in range(len(windows))]
    counted = np.concatenate([sample[counted_forces].numpy() for sample in samples])
    energies: dict[Unit, np.ndarray] = {}

    def forces_for(unit: Unit) -> np.ndarray:
        outputs = _predict(model, known, samples, conversion(distance_unit, unit, "distance"))
        energies[unit] = outputs[known.energy_key].double().flatten().cpu().numpy()
        return np.where(counted, outputs[known.forces_key].double().cpu().numpy(), 0.0)

    reference = np.concatenate([sample[properties.forces].numpy() for sample in samples]) * in_eV / in_Ang
    found = agreement(reference, forces_for, energy_unit, distance_unit)
    log.info(
        "'%s' at %d frames of '%s': forces off by %.3g eV/Å, of %.3g eV/Å on average",
        *(known.file, len(samples), frames.source, found.stated, found.zero),
    )
    if found.other_units:
        _refuse(known, found, energy_unit, distance_unit)
    if found.zero > 0.0 and not found.stated < found.zero:
        log.warning(
            "'%s' is no better than zero forces on '%s', in any unit that was tried. Was it trained on other elements, or "
            "another property?",
            *(known.file, frames.source),
        )
    differences = np.array([sample[properties.energy].item() for sample in samples]) - energies[distance_unit]
    shift = float((differences / [len(sample[properties.Z]) for sample in samples]).mean()) * in_eV
    if abs(shift) > _ENERGY_SHIFT:
        log.warning(
            "the energies of '%s' and of '%s' differ by %.3g eV per atom: another zero, another method, or a bad model. "
            "With energies in the loss (S = 1, or task.rollout_outputs) the model is bent to bridge that.",
            *(frames.source, known.file, shift),
        )


def _predict(
    model: AtomisticModel, known: Pretrained, samples: list[dict[str, torch.Tensor]], stretch: float
) -> Mapping[str, torch.Tensor]:
    """Outputs as a user of the model sees them, with offsets, for structures in another unit of length."""
    inputs = []
    for sample in samples:
        lengths = {key: sample[key] * stretch for key in (properties.R, properties.cell)}
        pairs = MatScipyNeighborList(known.cutoff)({**sample, **lengths})
        inputs.append({key: v.to(known.dtype) if v.is_floating_point() else v for key, v in pairs.items()})
    device = next(model.parameters()).device
    before = model.do_postprocessing
    model.do_postprocessing = True
    model.eval()
    try:
        batch = {key: value.to(device) for key, value in _atoms_collate_fn(inputs).items()}
        return {key: value.detach() for key, value in model(batch).items()}
    finally:
        model.train()
        model.do_postprocessing = before


def _refuse(known: Pretrained, found: Agreement, energy_unit: Unit, distance_unit: Unit) -> None:
    """Say which units fit, and how to set them."""
    energy = str(ENERGY_UNITS[found.energy_unit]).replace(" ", "")
    length = {"Angstrom": "Ang"}.get(found.position_unit, POSITION_UNITS[found.position_unit])
    remedy = f"Set data.property_units.energy={energy} data.distance_unit={length}."
    if known.run is not None:
        remedy = f"'{known.run.file}' says otherwise; put these units there, under data."
    raise ValueError(
        f"the model '{known.file}' looks like {found.energy_unit} and {found.position_unit}: on the data its forces are off "
        f"by {found.stated:.3g} eV/Å if read in '{energy_unit}' and '{distance_unit}', by {found.best:.3g} eV/Å in these "
        f"units. {remedy}"
    )
