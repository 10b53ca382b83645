"""Writes potentials as files of metatomic, which ASE, i-PI, LAMMPS, torch-sim and other engines run."""

import json
import warnings
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from metatensor.torch import Labels, TensorBlock
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelEvaluationOptions,
    ModelMetadata,
    ModelOutput,
    System,
)

from spk_dt.export.agreement import check_agreement
from spk_dt.export.member import member_of
from spk_dt.export.potential import ENERGY, ENSEMBLE, UNCERTAINTY, Committee
from spk_dt.export.stored import About, Stored, certificate_of, read_for_export, stored_elements, training_data
from spk_dt.folders.file_hash import file_hash
from spk_dt.folders.whole_file import whole_file
from spk_dt.labels.unit_check import Unit

__all__ = ["export_model"]

#: eV and eV/Å by which the file may differ from the model, by its precision
_AGREEMENT = {64: 1e-8, 32: 1e-3}

_PAPERS = {
    "EGNN": "Satorras, Hoogeboom, Welling, ICML 2021, arXiv 2102.09844",
    "PaiNN": "Schütt, Unke, Gastegger, ICML 2021, arXiv 2102.03150",
    "SchNet": "Schütt et al., J. Chem. Phys. 148, 241722 (2018), doi 10.1063/1.5019779",
    "SO3net": "Schütt, Hessmann, Gebauer, Lederer, Gastegger, J. Chem. Phys. 158, 144801 (2023), doi 10.1063/5.0138367",
}
_IMPLEMENTATION = [
    "SchNetPack 2: Schütt, Hessmann, Gebauer, Lederer, Gastegger, J. Chem. Phys. 158, 144801 (2023)",
]
_METHOD = "Dynamic Training: Žugec, Hadži Veljković, Alducin, Juaristi, J. Chem. Inf. Model. 2025, arXiv 2504.03521"


def export_model(
    models: Sequence[str | Path],
    out: str | Path,
    precision: int = 64,
    energy_unit: Unit | None = None,
    position_unit: Unit | None = None,
    elements: Sequence[str] = (),
    about: About | None = None,
) -> ModelMetadata:
    """Write a model, or a committee of models, as one file for engines.

    Args:
        models: ``best_model`` files, or folders of runs. Of several the mean is the potential; the file also gives
            ``energy_ensemble`` and ``energy_uncertainty``.
        out: file to write, ``.pt``.
        precision: bits of the numbers in the networks, 32 or 64. Energies are summed in double precision in any case.
        energy_unit: unit of the energies of the models; None takes what their runs say.
        position_unit: their unit of length, likewise.
        elements: symbols of the elements that engines may ask for; none takes those of the training data.
        about: for the metadata.

    Returns:
        the metadata that the file has.

    Raises:
        FileExistsError: if `out` is there.
        FileNotFoundError: if a model or a certificate is not.
        ValueError: if a model cannot be expressed, its units or elements are not known, members of a committee do not fit
            each other, a certificate is of another model or a committee is given one, or the file would not give what the
            model gives.
    """
    about, out = about or About(), Path(out)
    if out.exists():
        raise FileExistsError(f"'{out}' is there already; remove it, or choose another name.")
    if out.suffix != ".pt":
        raise ValueError(f"'{out}': engines know the file by its ending; call it '{out.with_suffix('.pt').name}'.")
    if len(models) > 1 and about.certificates:
        raise ValueError("a certificate is of one model, not of a committee: leave --certificate out.")
    stored = [read_for_export(model, energy_unit, position_unit) for model in models]
    types = sorted(set.intersection(*(set(stored_elements(one.file, one.run, elements)) for one in stored)))
    if not types:
        raise ValueError("the models have no element in common; a committee must be trained on the same data.")
    committee = Committee([member_of(one, precision) for one in stored], max(one.cutoff for one in stored)).eval()
    outputs = {ENERGY: ModelOutput(unit="eV", sample_kind="atom", description="potential energy")}
    if len(stored) > 1:
        outputs[ENSEMBLE] = ModelOutput(unit="eV", sample_kind="atom", description="potential energy of each model")
        # of the system: engines would warn of that of atoms, which says nothing (`Committee`)
        outputs[UNCERTAINTY] = ModelOutput(
            unit="eV", sample_kind="system", description="standard deviation over the models"
        )
    capabilities = ModelCapabilities(
        outputs=outputs,
        atomic_types=types,
        interaction_range=max(one.cutoff * one.n_layers for one in stored),
        length_unit="angstrom",
        supported_devices=["cuda", "cpu"],
        dtype="float64",
    )
    metadata = _metadata(stored, about, precision)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        exported = AtomisticModel(committee, metadata, capabilities)
        check_agreement(partial(_of_file, exported), stored, types, _AGREEMENT[precision])
        with whole_file(out, make_folder=True) as part:
            exported.save(str(part))
    return metadata


def _metadata(stored: Sequence[Stored], about: About, precision: int) -> ModelMetadata:
    names = sorted({type(one.model.representation).__name__ for one in stored})
    extra = {
        "spk_dt": version("spk_dt"),
        "schnetpack": version("schnetpack"),
        "precision": f"float{precision}",
        "model_sha256": ", ".join(file_hash(one.file) for one in stored),
    }
    data = {path for one in stored if (path := training_data(one.file, one.run)) is not None}
    if data:
        extra["training_data"] = ", ".join(sorted(path.name for path in data))
        extra["training_data_sha256"] = ", ".join(file_hash(path) for path in sorted(data))
    for i, folder in enumerate(about.certificates):
        extra[f"certificate_{i}"] = json.dumps(certificate_of(stored[0].file, folder))
    return ModelMetadata(
        name=about.name or stored[0].file.parent.name,
        description=about.description
        or f"{' and '.join(names)}, {len(stored)} model{'s' if len(stored) > 1 else ''}, trained with spk_dt",
        authors=list(about.authors),
        references={
            "architecture": [_PAPERS[name] for name in names if name in _PAPERS],
            "implementation": _IMPLEMENTATION,
            "model": [_METHOD],
        },
        extra=extra,
    )


def _of_file(exported: AtomisticModel, atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy and forces by the interface of engines."""
    (options,) = exported.requested_neighbor_lists()
    positions = torch.tensor(atoms.positions, requires_grad=True)
    system = System(
        types=torch.tensor(atoms.numbers, dtype=torch.int32),
        positions=positions,
        cell=torch.zeros((3, 3), dtype=torch.float64),
        pbc=torch.zeros(3, dtype=torch.bool),
    )
    i, j = (torch.tensor(index) for index in neighbor_list("ij", atoms, options.cutoff))
    samples = torch.cat([torch.stack([i, j], dim=1), torch.zeros((len(i), 3), dtype=torch.int64)], dim=1)
    names = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]
    system.add_neighbor_list(
        options,
        TensorBlock(
            (positions[j] - positions[i]).detach().unsqueeze(-1).requires_grad_(),
            Labels(names, samples.to(torch.int32)),
            [Labels.range("xyz", 3)],
            Labels.range("distance", 1),
        ),
    )
    asked = ModelEvaluationOptions(length_unit="angstrom", outputs={ENERGY: ModelOutput(unit="eV")})
    energy = exported([system], asked, check_consistency=True)[ENERGY].block().values.sum()
    pairs = system.get_neighbor_list(options).values
    by_pair, by_atom = torch.autograd.grad(energy, (pairs, positions), allow_unused=True)
    forces = torch.zeros((len(atoms), 3), dtype=torch.float64)
    if by_pair is not None:
        forces = forces.index_add(0, i, by_pair[..., 0]).index_add(0, j, -by_pair[..., 0])
    return float(energy.detach()), (forces - (0.0 if by_atom is None else by_atom)).numpy()
