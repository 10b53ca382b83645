"""Total charge and spin of start frames reach the model in SchNetPack's molecular dynamics, however it is begun."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
import schnetpack.properties as p
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.models import CUTOFF, potential, tiny_egnn
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from schnetpack.interfaces import SpkCalculator
from schnetpack.md import System
from schnetpack.nn import ElectronicEmbedding
from schnetpack.transform import MatScipyNeighborList

from spk_dt.certificate.engines import ModelEngine
from spk_dt.data.continuation import spread_continuations
from spk_dt.data.partition import read_partition
from spk_dt.data.start_frames import start_frames
from spk_dt.md import EnsembleCalculator, FramesInit, MaxwellBoltzmannInit, ModelCalculator, VerletNeighborList
from spk_dt.trajectories.database import TrajectoryWriter

CHARGES, SPINS = (1.0, 0.0, -2.0), (1.0, 2.0, 3.0)


def stored(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    embeddings = [
        ElectronicEmbedding(p.total_charge, 8, is_charged=True),
        ElectronicEmbedding(p.spin_multiplicity, 8, is_charged=False),
    ]
    with torch.no_grad():
        for parameter in torch.nn.ModuleList(embeddings).parameters():
            parameter.normal_()  # SchNetPack begins with zeros, which no input changes
    model = potential(tiny_egnn(electronic_embeddings=embeddings)).double().eval()
    torch.save(model, path)
    return path


@pytest.fixture
def model_file(tmp_path):
    return stored(tmp_path / "best_model")


@pytest.fixture
def frames(cluster, make_trajectory):
    """The same structure with three charges and spins: what differs is what the model is told."""
    found = []
    for charge, spin in zip(CHARGES, SPINS, strict=True):
        atoms = make_trajectory(cluster, 1, 0.5, 0)[0]
        atoms.info = {"charge": charge, "spin": spin}
        found.append(atoms)
    return found


def independent(model_file, frames):
    """Forces by SchNetPack's ASE calculator, which is told the inputs by hand."""
    found = []
    for atoms, charge, spin in zip(frames, CHARGES, SPINS, strict=True):
        inputs = {p.total_charge: torch.tensor([charge]).double(), p.spin_multiplicity: torch.tensor([spin]).double()}
        alone = atoms.copy()
        alone.calc = SpkCalculator(
            str(model_file),
            MatScipyNeighborList(CUTOFF),
            energy_unit="eV",
            dtype=torch.float64,
            additional_inputs=inputs,
        )
        found.append(alone.get_forces())
    return np.concatenate(found)


def in_md(calculator, frames, tmp_path, initializer=FramesInit, n_replicas=1):
    """Forces of one call of a calculator, at the positions of the frames."""
    file = tmp_path / "start.extxyz"
    ase.io.write(file, frames)
    system = System()
    system.load_molecules(list(ase.io.iread(file, ":")), n_replicas=n_replicas)
    keywords = {} if initializer is FramesInit else {"temperature": 300.0}
    initializer(file, **keywords).initialize_system(system)
    calculator.calculate(system.to(torch.float64))
    return system.properties["forces"].detach().numpy()


@pytest.mark.parametrize("initializer", [FramesInit, MaxwellBoltzmannInit])
@pytest.mark.parametrize("kind", ["model", "ensemble"])
def test_forces_are_those_of_the_charge(model_file, frames, tmp_path, kind, initializer):
    expected = independent(model_file, frames)
    if kind == "model":
        calculator = ModelCalculator(model_file, "eV", "Angstrom")
    else:
        files = [str(model_file)] * 2
        neighbors = VerletNeighborList(model_file=files)
        calculator = EnsembleCalculator(
            files,
            ["forces"],
            force_key="forces",
            energy_unit="eV",
            position_unit="Angstrom",
            neighbor_list=neighbors,
            energy_key="energy",
            script_model=False,
        )
    found = in_md(calculator.to(torch.float64), frames, tmp_path, initializer, n_replicas=2)
    for replica in found:
        np.testing.assert_allclose(replica, expected, atol=1e-5)  # positions go through single precision in one of both
    n = len(frames[0])
    assert np.abs(expected[:n] - expected[n : 2 * n]).max() > 1e-2  # else the inputs would not matter


def test_the_calculator_of_spkmd_takes_them(model_file, frames, tmp_path):
    configs = str(Path(__file__).parents[1] / "configs" / "md")
    with initialize_config_dir(configs, version_base=None):
        config = compose("config", overrides=["simulation_dir=x", f"calculator.model_file={model_file}"])
    settings = dict(config.calculator)
    settings.pop("neighbor_list")
    calculator = instantiate(settings, neighbor_list=VerletNeighborList(model_file=str(model_file)))
    np.testing.assert_allclose(in_md(calculator, frames, tmp_path)[0], independent(model_file, frames), atol=1e-6)


@pytest.mark.parametrize(
    ("without", "message"),
    [((0, 1, 2), "takes total_charge, which the start frames do not say"), ((1,), "molecule 1 has no total_charge")],
)
def test_molecules_without_are_refused(model_file, frames, tmp_path, without, message):
    for i in without:
        del frames[i].info["charge"]
    with pytest.raises(ValueError, match=message):
        in_md(ModelCalculator(model_file, "eV", "Angstrom"), frames, tmp_path)


def test_evaluation_and_certificate_start_with_them(model_file, frames, tmp_path):
    database = tmp_path / "a.db"
    with TrajectoryWriter(database) as writer:
        for i, atoms in enumerate(frames):
            atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
            writer.add(f"run_{i}", [atoms, atoms], 0.5)
    expected = independent(model_file, frames)
    starts = spread_continuations(read_partition(database, "all"))
    engine = ModelEngine(model_file, compile=False)
    for of_data in ([one.start for one in starts], start_frames(database, "all")):
        evaluated = engine.evaluated(of_data)
        np.testing.assert_allclose(np.concatenate([atoms.get_forces() for atoms in evaluated]), expected, atol=1e-6)
