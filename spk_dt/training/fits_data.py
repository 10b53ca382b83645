"""Does a trained model fit the data that it is to be trained on? Its elements, its units, and its energies."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols
from schnetpack import properties
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.model import AtomisticModel
from schnetpack.task import ModelOutput
from schnetpack.transform import AddOffsets, MatScipyNeighborList

from spk_dt.data.fixed_forces import held_forces
from spk_dt.data.windows import TrajectoryWindows
from spk_dt.labels.unit_check import ENERGY_UNITS, POSITION_UNITS, Agreement, Unit, agreement
from spk_dt.properties import counted_forces
from spk_dt.training.energy_offsets import Difference, energy_difference
from spk_dt.training.energy_zero import added_by, data_offsets, offsets_of
from spk_dt.training.pretrained import Pretrained
from spk_dt.trajectories.frames import Frames
from spk_dt.units import conversion

__all__ = [
    "EnergiesCompared",
    "check_elements",
    "check_forces",
    "compare_energies",
    "frames_to_compare",
    "report_energies",
]

log = logging.getLogger(__name__)

#: systems that are computed at once, and frames that are compared
_BATCH, _COMPARED = 8, 32


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


@dataclass(frozen=True)
class EnergiesCompared:
    """How the energies of a model and of data differ.

    Args:
        offsets: atomic number -> offset from the zero of the model to that of the data, in the unit of the data; None if the
            zeros are the same, or the offsets are those that are stored in the model.
        difference: the fit.
        names: trajectories with energies that are far off after it.
    """

    offsets: dict[int, float] | None
    difference: Difference
    names: list[str]


def frames_to_compare(frames: Frames, members: np.ndarray) -> np.ndarray:
    """Some 32 frames of a partition, more if its elements need them, spread over its trajectories, with all its elements.

    Args:
        frames: the data.
        members: [n_members] indices of the frames of the partition.

    Returns:
        [n] indices, ascending.
    """
    indices = np.unique(members)
    owner = np.searchsorted([t.start for t in frames.trajectories], indices, side="right") - 1
    owners = np.unique(owner)
    taken = set(owners[np.linspace(0, len(owners) - 1, min(_COMPARED, len(owners))).round().astype(int)].tolist())
    elements = {z for one in taken for z in frames.atomic_numbers[one]}
    for one in owners.tolist():
        if not elements.issuperset(frames.atomic_numbers[one]):
            taken.add(one)
            elements.update(frames.atomic_numbers[one])
    each, chosen = -(-_COMPARED // len(taken)), []
    for one in sorted(taken):
        of_trajectory = indices[owner == one]
        spread = np.linspace(0, len(of_trajectory) - 1, each) if each > 1 else np.array([(len(of_trajectory) - 1) / 2])
        chosen.append(of_trajectory[np.unique(spread.round().astype(int))])
    return np.concatenate(chosen)


def check_forces(model: AtomisticModel, known: Pretrained, frames: Frames, chosen: np.ndarray) -> None:
    """Compare the forces of a model with the data at some frames.

    Refuses a model whose forces agree with the data in other units than those of the data. A model that is bad in all units
    only deserves a warning.

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

    def forces_for(unit: Unit) -> np.ndarray:
        forces = _predict(model, known, samples, conversion(distance_unit, unit, "distance"))[1]
        return np.where(counted, forces, 0.0)

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


def compare_energies(model: AtomisticModel, known: Pretrained, frames: Frames, chosen: np.ndarray) -> EnergiesCompared:
    """Are the energies of the data those of the model, but for their zero?

    Args:
        model: the model, in training mode.
        known: what is known of it.
        frames: the data, in the units of the model.
        chosen: [n] indices of the frames to compare at.

    Raises:
        ValueError: if there are energies that are no numbers.
    """
    in_eV = conversion(frames.units[properties.energy], "eV", "energy")
    owners = [frames.trajectory_of(int(i)) for i in chosen]
    elements = np.unique(np.concatenate([frames.atomic_numbers[one] for one in owners]))
    counts = np.array([(frames.atomic_numbers[one][:, None] == elements).sum(axis=0) for one in owners], dtype=float)
    windows = TrajectoryWindows(frames, chosen, 1)
    samples = [windows[i] for i in range(len(windows))]
    predicted, forces = _predict(model, known, samples, 1.0)
    in_eV_Ang = in_eV / conversion(frames.distance_unit, "Ang", "distance")
    reference = np.concatenate([sample[properties.forces].numpy() for sample in samples])
    errors = [float(np.abs(values).mean()) * in_eV_Ang for values in (forces - reference, reference)]
    added = [copy.deepcopy(module).cpu() for module in offsets_of(model, known.energy_key)]
    data = np.array([(sample[properties.energy] - added_by(added, sample)).item() for sample in samples])

    for energies, source in ((data, frames.source), (predicted, known.file)):
        if not np.isfinite(energies).all():
            raise ValueError(
                f"energies of '{source}' are no numbers, at the training frames {chosen[~np.isfinite(energies)][:5]}."
            )

    def difference(offsets: np.ndarray) -> Difference:
        return energy_difference((data - counts @ offsets) * in_eV, predicted * in_eV, counts, *errors)

    module = data_offsets(model)
    stored = None if module is None or module.add_atomrefs else module.atomref.cpu().numpy()[elements]
    found = difference(np.zeros(len(elements)) if stored is None else stored)
    offsets: dict[int, float] | None = None
    if found.another_zero and stored is not None:
        found, offsets = difference(np.zeros(len(elements))), {}
    if found.another_zero and found.explained:
        offsets = dict(zip(elements.tolist(), (found.offsets / in_eV).tolist(), strict=True))
    names = dict.fromkeys(frames.trajectories[owners[i]].name for i in np.flatnonzero(found.outliers))
    return EnergiesCompared(offsets, found, list(names))


def report_energies(
    energies: EnergiesCompared, known: Pretrained, frames: Frames, outputs: Sequence[ModelOutput], in_loss: bool
) -> None:
    """Say what was found of the energies, and refuse those that do not fit if they are in the loss.

    Args:
        energies: what `compare_energies` has returned.
        known: what is known of the model.
        frames: the data.
        outputs: of the task.
        in_loss: whether any batch is trained on with its energies.

    Raises:
        ValueError: if they are, and differ from those of the model by more than offsets.
    """
    found = energies.difference
    named = ", ".join(energies.names[:3]) + (" and others" if len(energies.names) > 3 else "")
    if not found.explained:
        index = next((i for i, output in enumerate(outputs) if output.name == known.energy_key), None)
        message = (
            f"the energies of '{frames.source}' do not fit '{known.file}', whose forces are off by {found.force_error:.3g} "
            f"eV/Å there: with the best offset per element they are off by {found.rest:.3g} eV in a frame, of changes of "
            f"{found.change:.3g} eV, {found.reason()}" + (f" (trajectories {named})" if found.mixed else "")
        )
        if in_loss:
            raise ValueError(
                f"{message}. Put the energies right in the files and convert them anew (spkdt convert), or leave energies "
                f"out of the training: task.outputs.{index}.loss_weight=0 'may_differ=[loss]'."
            )
        log.warning("%s. They are not in the loss.", message)
        return
    if named:
        log.warning(
            "single energies of '%s' are far off from those of the model (trajectories %s)", frames.source, named
        )
    if found.another_zero:
        in_eV = conversion(frames.units[properties.energy], "eV", "energy")
        values = ", ".join(f"{chemical_symbols[z]} {v * in_eV:+.6g}" for z, v in (energies.offsets or {}).items())
        log.warning(
            "the energies of '%s' have another zero than those of '%s': %s eV. This offset is taken out in training, "
            "and is kept in the model: with energy_zero=data the stored model gives energies in the zero of the data.%s",
            *(frames.source, known.file, values),
            ""
            if found.determined
            else " The compositions of the data do not tell the elements apart: in the zero of the data, energies of other "
            "compositions are undetermined.",
        )


def _predict(
    model: AtomisticModel, known: Pretrained, samples: Sequence[dict[str, torch.Tensor]], stretch: float
) -> tuple[np.ndarray, np.ndarray]:
    """Energies [n] and forces [n_atoms, 3] of a model without what it adds after training.

    Args:
        model: in training mode.
        known: what is known of it.
        samples: structures.
        stretch: factor of all lengths, for another unit.
    """
    inputs = []
    for sample in samples:
        lengths = {key: sample[key] * stretch for key in (properties.R, properties.cell)}
        pairs = MatScipyNeighborList(known.cutoff)({**sample, **lengths})
        inputs.append({key: v.to(known.dtype) if v.is_floating_point() else v for key, v in pairs.items()})
    device = next(model.parameters()).device
    before = model.do_postprocessing
    model.do_postprocessing = False
    model.eval()
    outputs = []
    try:
        for i in range(0, len(inputs), _BATCH):
            batch = {key: value.to(device) for key, value in _atoms_collate_fn(inputs[i : i + _BATCH]).items()}
            outputs.append({key: value.detach().double().cpu() for key, value in model(batch).items()})
    finally:
        model.train()
        model.do_postprocessing = before
    energies, forces = (torch.cat([one[key] for one in outputs]) for key in (known.energy_key, known.forces_key))
    return energies.flatten().numpy(), forces.numpy()


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
