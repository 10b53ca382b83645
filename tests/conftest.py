"""Small trajectory databases that several tests read, which belong to the session: copy one before changing it.

And where programs are called in the process of the tests. What is imported, and is no fixture, is in ``helpers``.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import ase.io
import ase.units
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from helpers.pair_potential import pair_model, pair_trajectory, tetrahedron
from helpers.pair_simulation import STEPS
from helpers.programs import HYDRA
from helpers.simulated import recorded, warm
from hydra import version
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from spk_dt.data import TrajectoryWriter
from spk_dt.data.embedded import unpack
from spk_dt.data.start_frames import start_frames

#: files with few tests that take long
LONG = ("test_wheel.py", "test_certify.py")
#: tests, or beginnings of their names, that are slow
SLOW = tuple(line for line in (Path(__file__).parent / "slow.txt").read_text().split("\n") if line and line[0] != "#")


@pytest.hookimpl(tryfirst=True)  # before pytest leaves the slow ones out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that one of two processes does not wait for the other in the end."""
    items.sort(key=lambda item: item.path.name not in LONG)
    for item in items:
        if item.nodeid.removeprefix("tests/").startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _no_hydra_program():
    """Hydra's state, in which paths are relative to where a program was started, does not outlive a test."""
    yield
    HydraConfig.instance().cfg = None
    GlobalHydra.instance().clear()


@pytest.fixture
def quiet_hydra(monkeypatch):
    """Of a program that is called here, errors come out as they are, and neither state nor logging outlives a test."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    root, level, handlers = logging.getLogger(), logging.getLogger().level, list(logging.getLogger().handlers)
    GlobalHydra.instance().clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        version.setbase(HYDRA)
        yield
    GlobalHydra.instance().clear()
    root.setLevel(level)
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers


#: makes frames of a velocity-Verlet trajectory from a structure, a number of steps, a time step in fs and a seed
MakeTrajectory = Callable[[Atoms, int, float, int], list[Atoms]]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders of reference calculations are made; those of failures stay there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="session")
def cluster() -> Atoms:
    """Pd4 with H2 beside it, not periodic."""
    tetrahedron = [(0.0, 0.0, 0.0), (1.9, 1.9, 0.0), (1.9, 0.0, 1.9), (0.0, 1.9, 1.9)]
    return Atoms("Pd4H2", positions=[*tetrahedron, (4.4, 1.0, 1.0), (4.8, 1.7, 1.0)])


@pytest.fixture(scope="session")
def crystal() -> Atoms:
    """Four atoms of Cu in a periodic, slightly sheared cell."""
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell([[3.6, 0.0, 0.0], [0.2, 3.6, 0.0], [0.0, 0.1, 3.9]], scale_atoms=True)
    return atoms


@pytest.fixture(scope="session")
def make_trajectory() -> MakeTrajectory:
    """Frames at constant energy with the effective-medium potential, from 600 K, at every step."""

    def make(atoms: Atoms, steps: int, timestep_fs: float, seed: int = 0) -> list[Atoms]:
        atoms = atoms.copy()
        atoms.calc = EMT()
        warm(atoms, 600.0, seed)
        return recorded(VelocityVerlet(atoms, timestep_fs * ase.units.fs), steps)

    return make


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory, cluster: Atoms, make_trajectory: MakeTrajectory) -> Path:
    """Five trajectories ``run_0`` to ``run_4`` of the cluster, 25 frames of 0.5 fs each, with a split 3/1/1."""
    path = tmp_path_factory.mktemp("database") / "cluster.db"
    splits = {"train": ["run_0", "run_2", "run_4"], "val": ["run_1"], "test": ["run_3"]}
    with TrajectoryWriter(path, splits=splits) as writer:
        for i in range(5):
            writer.add(f"run_{i}", make_trajectory(cluster, 24, 0.5, i), timestep_fs=0.5)
    return path


@pytest.fixture(scope="session")
def mixed_database(
    tmp_path_factory: pytest.TempPathFactory, cluster: Atoms, crystal: Atoms, make_trajectory: MakeTrajectory
) -> Path:
    """Cluster (20 frames, 0.5 fs), crystal (15 frames, 1 fs), larger crystal (12 frames, 0.25 fs); no split."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.db"
    larger = crystal.repeat((2, 1, 1))
    with TrajectoryWriter(path) as writer:
        writer.add("cluster", make_trajectory(cluster, 19, 0.5, 0), timestep_fs=0.5)
        writer.add("crystal", make_trajectory(crystal, 14, 1.0, 1), timestep_fs=1.0)
        writer.add("larger", make_trajectory(larger, 11, 0.25, 2), timestep_fs=0.25)
    return path


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded data set."""
    path = tmp_path_factory.mktemp("embedded") / "h2_pd6_graphene.db"
    unpack(path)
    return path


@pytest.fixture(scope="session")
def pair_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trajectories of Pd2H2 with the pair potential, one of them short."""
    path = tmp_path_factory.mktemp("pairs") / "pd2h2.db"
    with TrajectoryWriter(path) as writer:
        writer.add("long", pair_trajectory(tetrahedron(), STEPS, 0.5, 1), timestep_fs=0.5)
        writer.add("short", pair_trajectory(tetrahedron("PdH2Pd"), 15, 0.5, 2), timestep_fs=0.5)
    return path


@pytest.fixture
def pair_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair_database: Path) -> Path:
    """A working folder with start frames as ``spkdt frames`` writes them, and models: of the potential, and deeper."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("start.extxyz", start_frames(pair_database))
    pair_model(tmp_path / "exact")
    pair_model(tmp_path / "deep", depth=1.2)
    return tmp_path
