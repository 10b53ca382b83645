"""Writes potentials as files of metatomic, which ASE, i-PI, LAMMPS, torch-sim and other engines run."""

import json
import warnings
from collections.abc import Sequence
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
from schnetpack import properties

from spk_dt.export.potential import ENERGY, ENSEMBLE, UNCERTAINTY, Committee, Member
from spk_dt.export.stored import About, Stored, certificate_of, read_for_export, stored_elements, training_data
from spk_dt.folders.file_hash import file_hash
from spk_dt.folders.whole_file import whole_file
from spk_dt.labels.unit_check import Unit

__all__ = ["export_model"]

#: eV and eV/Å by which the file may differ from the model, in double precision
_AGREEMENT = 1e-8

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
    if precision not in (32, 64):
        raise ValueError(f"precision={precision}: networks compute with 32 or 64 bits.")
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
    committee = Committee([_member(one, precision) for one in stored], max(one.cutoff for one in stored)).eval()
    outputs = {ENERGY: ModelOutput(unit="eV", sample_kind="atom", description="potential energy")}
    if len(stored) > 1:
        outputs[ENSEMBLE] = ModelOutput(unit="eV", sample_kind="atom", description="potential energy of each model")
        outputs[UNCERTAINTY] = ModelOutput(
            unit="eV", sample_kind="atom", description="standard deviation over the models"
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
        _check(stored, exported, types, precision)
        with whole_file(out, make_folder=True) as part:
            exported.save(str(part))
    return metadata


def _member(stored: Stored, precision: int) -> Member:
    dtype = getattr(torch, f"float{precision}")
    representation, outnet = stored.model.representation.to(dtype), stored.energy.outnet.to(dtype)
    return Member(representation, outnet, stored.length, stored.scale, stored.offsets)


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


def _check(stored: Sequence[Stored], exported: AtomisticModel, types: Sequence[int], precision: int) -> None:
    """Compare what the file gives with what the models give, for atoms of all elements, and one alone."""
    rng = np.random.default_rng(0)
    cutoff = min(one.cutoff for one in stored)
    numbers = [*types, *types, *types][: max(3, len(types))]
    spread = 0.5 * cutoff * np.arange(len(numbers))[:, None] * np.array([1.0, 0.1, 0.0])
    together = Atoms(numbers, spread + rng.normal(scale=0.05 * cutoff, size=(len(numbers), 3)))
    limit = _AGREEMENT if precision == 64 else 1e-3
    for atoms in (together, Atoms([types[0]])):
        energy, forces = _of_file(exported, atoms)
        expected = [_of_model(one, atoms) for one in stored]
        of_models = np.mean([one[0] for one in expected]), np.mean([one[1] for one in expected], axis=0)
        off = max(abs(energy - of_models[0]) / len(atoms), float(np.abs(forces - of_models[1]).max()))
        if not off <= limit * max(1.0, float(np.abs(of_models[1]).max())):
            raise ValueError(
                f"the file would differ from the model by {off:.2g} eV per atom, or eV/Å, for "
                f"{atoms.get_chemical_formula()}: {type(stored[0].model.representation).__name__} does something that is "
                "not known here. It is not written."
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


def _of_model(stored: Stored, atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (eV/Å) by SchNetPack."""
    model = stored.model
    dtype = next(p.dtype for p in stored.energy.parameters())
    i, j = (torch.tensor(index) for index in neighbor_list("ij", atoms, stored.cutoff))
    positions = torch.tensor(atoms.positions / stored.length, dtype=dtype, requires_grad=True)
    inputs = {
        properties.Z: torch.tensor(atoms.numbers, dtype=torch.int64),
        properties.R: positions,
        properties.idx_i: i,
        properties.idx_j: j,
        properties.idx_m: torch.zeros(len(atoms), dtype=torch.int64),
        properties.n_atoms: torch.tensor([len(atoms)]),
        properties.offsets: torch.zeros((len(i), 3), dtype=dtype),
        properties.cell: torch.zeros((1, 3, 3), dtype=dtype),
        properties.pbc: torch.zeros(3, dtype=torch.bool),
        properties.idx: torch.zeros(1, dtype=torch.int64),
    }
    for module in model.input_modules:
        inputs = module(inputs)
    inputs = model.representation(inputs)
    own = stored.energy(inputs)[stored.energy.output_key]
    (gradient,) = torch.autograd.grad(own.sum(), positions, allow_unused=True)
    inputs[stored.energy.output_key] = own.detach().to(torch.float64)
    energy = float(model.postprocess(inputs)[stored.energy.output_key].sum())
    forces = (
        np.zeros((len(atoms), 3)) if gradient is None else -gradient.double().numpy() * stored.scale / stored.length
    )
    return energy * stored.energy_unit, forces
