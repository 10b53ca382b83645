"""The configs of ``configs/md``: complete, found by ``spkmd`` only, and each of them runs.

``spkmd`` needs some 15 s to start, so all runs but one call its main function in this process.
"""

import functools
import stat
import subprocess
import sys
from pathlib import Path

import ase.io
import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet
from helpers.models import two_schnets
from helpers.programs import HYDRA, spkmd
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf
from schnetpack import units as spk_units
from schnetpack.interfaces import AtomsConverter
from schnetpack.md import cli
from schnetpack.md.data import HDF5Loader
from schnetpack.transform import ASENeighborList

pytestmark = pytest.mark.usefixtures("quiet_hydra")

#: Names from SchNetPack's documentation, and ours: vesin, verlet, frames.
GROUPS = {
    "calculator": {"spk", "spk_ensemble", "lj", "orca"},
    "calculator/neighbor_list": {"verlet", "matscipy", "ase", "torch", "vesin"},
    "system": {"system"},
    "system/initializer": {"uniform", "maxwell_boltzmann", "frames"},
    "dynamics": {"base"},
    "dynamics/integrator": {"md", "rpmd"},
    "dynamics/thermostat": {
        *("berendsen", "langevin", "nhc", "gle"),
        *("pile_local", "pile_global", "trpmd", "pi_gle", "piglet", "pi_nhc_local", "pi_nhc_global"),
    },
    "dynamics/barostat": {"nhc_iso", "nhc_aniso", "pile_rpmd"},
    "callbacks": {"checkpoint", "hdf5", "tensorboard", "compare", "stop_exploded"},
}

SIGMA, EPSILON = 3.405, 0.041294 / 4  # of calculator=lj, in Å and eV
LJ = ("calculator=lj", "calculator/neighbor_list=matscipy")
CLUSTER = np.array([[0.0, 0.0, 0.0], [3.7, 0.1, 0.0], [0.2, 3.9, 0.1], [0.0, 0.3, 4.1]])  # Å


# ------------------------------------------------------------------------------------------------------------ helpers


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a moving argon cluster, ``start.traj``."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("start.traj", argon())
    return tmp_path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two small models of SchNetPack."""
    return two_schnets(tmp_path_factory.mktemp("models"), 2, 5.0)


def argon() -> Atoms:
    atoms = Atoms("Ar4", positions=CLUSTER)
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.05, size=(4, 3)))  # Å / ASE time: some 1,000 K
    return atoms


def composed(*overrides):
    """The config of `spkmd`, found as the program finds it."""
    with initialize_config_module("schnetpack.md.md_configs", version_base=HYDRA):
        return compose("config", overrides=list(overrides))


# -------------------------------------------------------------------------------------------------------- search path


def search_path() -> list[tuple[str, str]]:
    return [
        (entry.provider, entry.path) for entry in GlobalHydra.instance().config_loader().get_search_path().get_path()
    ]


def test_configs_come_last_and_once():
    with initialize_config_module("schnetpack.md.md_configs", version_base=HYDRA):
        providers = [provider for provider, _ in search_path()]
        folder = Path(dict(search_path())["spk_dt"].removeprefix("file://"))
    assert providers.count("spk_dt") == 1
    assert providers.index("main") < providers.index("spk_dt")  # files of SchNetPack, if any, win
    assert {path.stem for path in folder.glob("*.yaml")} == {"config"}


def test_other_programs_do_not_see_them(tmp_path):
    with initialize_config_dir(str(tmp_path), version_base=HYDRA):
        assert not [path for path in search_path() if "spk_dt" in str(path)]
        assert GlobalHydra.instance().config_loader().get_group_options("dynamics/thermostat") == []
    with initialize_config_module("hydra.test_utils.configs", version_base=HYDRA):
        assert "spk_dt" not in dict(search_path())
    with initialize_config_module("schnetpack.configs", version_base=HYDRA):  # spktrain: our other configs only
        assert Path(dict(search_path())["spk_dt"]).name != "md"


@pytest.mark.parametrize("group", GROUPS)
def test_groups_are_complete(group):
    with initialize_config_module("schnetpack.md.md_configs", version_base=HYDRA):
        assert set(GlobalHydra.instance().config_loader().get_group_options(group)) == GROUPS[group]


# ---------------------------------------------------------------------------------------------------------- defaults


def test_defaults():
    config = composed()
    assert (config.device, config.precision, config.seed) == ("cpu", 64, None)
    assert config.calculator.energy_unit == "eV"
    assert config.calculator.neighbor_list._target_ == "spk_dt.md.VerletNeighborList"
    assert config.system.initializer._target_ == "spk_dt.md.UniformInit"
    assert config.dynamics.thermostat is config.dynamics.barostat is None
    assert list(config.callbacks) == ["checkpoint", "hdf5", "tensorboard"]
    assert config.overwrite is False
    assert config.restart is config.load_config is None
    assert {key for key in ("simulation_dir", "calculator", "system") if OmegaConf.is_missing(config, key)} == {
        "simulation_dir"
    }


@pytest.mark.parametrize("neighbor_list", sorted(GROUPS["calculator/neighbor_list"]))
@pytest.mark.parametrize("calculator", ["spk", "spk_ensemble", "lj"])
def test_cutoff_of_each_calculator(calculator, neighbor_list):
    """The model's for `verlet`, to be given for the others, and that of the potential for lj."""
    files = {"spk": ["calculator.model_file=a"], "spk_ensemble": ["calculator.model_files=[a,b]"], "lj": []}[calculator]
    config = composed(f"calculator={calculator}", f"calculator/neighbor_list={neighbor_list}", *files)
    arguments = config.calculator.neighbor_list
    assert arguments.get("cutoff") == (10.0 if calculator == "lj" else None)
    if neighbor_list == "verlet":
        assert arguments.model_file == {"spk": "a", "spk_ensemble": ["a", "b"], "lj": None}[calculator]
    else:
        assert "model_file" not in arguments


# -------------------------------------------------------------------------------------------- calculators, neighbours


@pytest.mark.parametrize("neighbor_list", sorted(GROUPS["calculator/neighbor_list"]))
@pytest.mark.parametrize("calculator", ["spk", "spk_ensemble", "lj"])
def test_calculators_with_neighbor_lists(folder, models, calculator, neighbor_list):
    overrides = ["system/initializer=frames", f"calculator={calculator}"]
    if calculator == "spk":
        overrides += [f"calculator.model_file={models[0]}"]
    if calculator == "spk_ensemble":
        overrides += [f"calculator.model_files=[{models[0]},{models[1]}]"]
    cutoff = [] if calculator == "lj" or neighbor_list == "verlet" else ["calculator.neighbor_list.cutoff=5.0"]
    state = spkmd(*overrides, *cutoff, f"calculator/neighbor_list={neighbor_list}")
    assert state["forces"].dtype == torch.float64
    assert state["forces"].abs().max() > 1e-3  # kJ/mol/nm

    # independent of `spkmd`, at the same positions
    atoms = Atoms("Ar4", positions=10.0 * state["positions"][0].numpy())
    if calculator == "lj":
        atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=50.0)
        forces = atoms.get_forces()
    else:
        used = models[:1] if calculator == "spk" else models
        forces = np.mean([model_forces(path, atoms) for path in used], axis=0)
    forces *= ase.units.mol / ase.units.kJ * 10.0  # eV/Å -> kJ/mol/nm
    np.testing.assert_allclose(state["forces"][0], forces, rtol=1e-9, atol=1e-9)


def model_forces(path: Path, atoms: Atoms) -> np.ndarray:
    """Forces of a stored model, in its units."""
    model = torch.load(path, weights_only=False).double().eval()
    return model(AtomsConverter(ASENeighborList(5.0), dtype=torch.float64)(atoms))["forces"].detach().numpy()


@pytest.mark.parametrize("unit", ["kcal / mol", "Hartree"])
def test_energy_unit_scales_the_forces(folder, models, unit):
    model = [f"calculator.model_file={models[0]}", "calculator/neighbor_list=ase", "calculator.neighbor_list.cutoff=5"]
    state = spkmd(*model, f"calculator.energy_unit={unit}")
    atoms = Atoms("Ar4", positions=10.0 * state["positions"][0].numpy())
    factor = {"kcal / mol": 4.184, "Hartree": 2625.4996}[unit] * 10.0  # kJ/mol/nm
    np.testing.assert_allclose(state["forces"][0], factor * model_forces(models[0], atoms), rtol=1e-6, atol=1e-9)


def test_orca(folder):
    """A stand-in for ORCA: energy 1/2 k x^2 and gradient k x in Hartree and Bohr, printed as ORCA does."""
    bohr, k = ase.units.Bohr, 0.01
    program = folder / "orca"
    program.write_text(
        f"""#!{sys.executable}
import sys
rows = [line.split() for line in open(sys.argv[1]) if line[:2] == "Ar"]
x = [[float(v) / {bohr!r} for v in row[1:]] for row in rows]
print("FINAL SINGLE POINT ENERGY     ", 0.5 * {k} * sum(v * v for r in x for v in r))
print("------------------")
print("CARTESIAN GRADIENT")
print("------------------")
print()
for i, r in enumerate(x):
    print(f"{{i + 1:4d}}   Ar   :", *(f"{{{k} * v:.12f}}" for v in r))
print()
print("Difference to translation invariance:")
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "template.inp").write_text("! HF EnGrad\n* xyz 0 1\n{geometry}\n*\n")
    state = spkmd(
        *("calculator=orca", f"calculator.qm_executable={program}", "calculator.orca_template=template.inp"),
        *("system/initializer=frames", "simulation_dir=out"),
    )
    x = state["positions"][0].numpy() * 10.0 / bohr
    hartree = ase.units.Hartree * ase.units.mol / ase.units.kJ  # kJ/mol
    np.testing.assert_allclose(state["forces"][0], -k * x * hartree / bohr * 10.0, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(state["energy"].item(), 0.5 * k * (x**2).sum() * hartree, rtol=1e-6)
    assert sorted(path.name for path in (folder / "out" / "orca").iterdir())[0] == "input_000001.oinp"


# ----------------------------------------------------------------------------------- initializers, dynamics, callbacks


@pytest.mark.parametrize("initializer", sorted(GROUPS["system/initializer"]))
def test_initializers(folder, initializer):
    state = spkmd(*LJ, f"system/initializer={initializer}")
    assert state["momenta"].abs().max() > 1.0
    moving = state["momenta"].sum(1).abs().max() > 1e-3
    assert moving == (initializer == "frames")  # the others remove the motion as a whole


def test_without_initializer(folder):
    state = spkmd(*LJ, "system.initializer=null", "dynamics.integrator.time_step=1e-9")
    assert state["momenta"].abs().max() < 1e-6


def test_uniform_takes_a_temperature_for_each_molecule(folder):
    ase.io.write("start.traj", [argon(), argon()])
    momenta = spkmd(*LJ, "system.initializer.temperature=[10.0,1000.0]", "dynamics.integrator.time_step=1e-9")[
        "momenta"
    ]
    assert momenta[0, 4:].square().sum() > 30 * momenta[0, :4].square().sum()


@pytest.mark.parametrize("thermostat", sorted(GROUPS["dynamics/thermostat"]))
def test_thermostats(folder, constant_energy, thermostat):
    Path("matrices").write_text(gle_matrices(4 if thermostat == "piglet" else 1))
    integrator = "md" if thermostat in ("berendsen", "langevin", "nhc", "gle") else "rpmd"
    overrides = [*constant_energy.overrides[integrator], f"+dynamics/thermostat={thermostat}"]
    if "gle" in thermostat:
        overrides += [f"dynamics.thermostat.gle_file={folder / 'matrices'}"]
    momenta = spkmd(*overrides, steps=4)["momenta"]
    assert torch.isfinite(momenta).all()
    assert (momenta - constant_energy(integrator)).abs().max() > 1e-4


@pytest.fixture(scope="module")
def constant_energy():
    """Momenta after four steps without thermostat, by integrator; each run once."""

    @functools.cache
    def momenta(integrator):
        return spkmd(*momenta.overrides[integrator], "simulation_dir=without", steps=4)["momenta"]

    momenta.overrides = {"md": LJ, "rpmd": (*LJ, "dynamics/integrator=rpmd", "system.n_replicas=4")}
    return momenta


def gle_matrices(n: int) -> str:
    """Made-up friction (A) and covariance (C, of 300 K and `n` beads) in the format of gle4md.org."""
    a, c = "# A MATRIX: (picoseconds^-1)\n", "# C MATRIX: (K)\n"
    for i in range(n):
        head = f"# Matrix for normal mode {i}\n" if n > 1 else ""
        a += head + " 10.0 0.5\n -0.5 20.0\n"
        c += head + f" {300 * n} 0.0\n 0.0 {300 * n}\n"
    return a + c


NPT = (*LJ, "calculator.stress_key=stress", "calculator.neighbor_list.cutoff=7.0")


@pytest.mark.parametrize("barostat", sorted(GROUPS["dynamics/barostat"]))
def test_barostats(folder, barostat):
    crystal = bulk("Ar", cubic=True, a=5.1) * (3, 3, 3)
    ase.io.write("start.traj", crystal)
    overrides = [f"+dynamics/barostat={barostat}"]
    if barostat == "pile_rpmd":
        overrides += ["dynamics/integrator=rpmd", "system.n_replicas=2", "+dynamics/thermostat=pile_local"]
    state = spkmd(*NPT, *overrides, callbacks="[checkpoint,tensorboard]", steps=4)
    cell = state["cells"][0, 0].numpy() * 10.0
    assert 1e-9 < np.abs(cell - crystal.cell.array).max() < 0.1


@pytest.mark.parametrize("barostat", sorted(GROUPS["dynamics/barostat"]))
def test_barostats_instantiate(barostat):
    hook = instantiate(composed(f"+dynamics/barostat={barostat}").dynamics.barostat)
    assert hook.target_pressure.item() == pytest.approx(1.01325 * spk_units.bar)


def test_stress_in_hdf5(folder):
    ase.io.write("start.traj", bulk("Ar", cubic=True, a=5.3) * (3, 3, 3))
    spkmd(*NPT, callbacks="[checkpoint,hdf5]")


@pytest.mark.parametrize("precision", [32, 64])
def test_callbacks_and_precision(folder, precision):
    state = spkmd(
        *LJ, f"precision={precision}", "callbacks.hdf5.every_n_steps=2", callbacks="[checkpoint,hdf5,tensorboard]"
    )
    assert state["positions"].dtype == getattr(torch, f"float{precision}")
    data = HDF5Loader("out/simulation.hdf5")
    assert data.get_positions().dtype == getattr(np, f"float{precision}")
    assert data.entries == 1
    # the calculator's energy in eV, and the system's in kJ/mol
    energy, in_kj = data.properties["energy"].item(), data.properties["energy_system"].item()
    assert in_kj == pytest.approx(energy * ase.units.mol / ase.units.kJ, rel=1e-5)
    data.database.close()
    assert list(Path("out/logs").glob("events*"))
    assert {path.name for path in Path("out").iterdir()} == {
        *("checkpoint.chk", "simulation.hdf5", "logs", ".hydra", "spkmd.log")
    }


# ------------------------------------------------------------------------------------------------------- whole program


def test_second_run_into_the_same_folder_is_refused(folder):
    spkmd(*LJ, callbacks="[checkpoint,hdf5]")
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    for callbacks in ("[checkpoint,hdf5]", "[checkpoint]"):
        with pytest.raises(SystemExit, match="'out' holds a run already"):
            spkmd(*LJ, callbacks=callbacks)
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before


def test_overwrite_moves_the_old_run_aside(folder):
    spkmd(*LJ, callbacks="[checkpoint,hdf5]")
    old = Path("out/simulation.hdf5").read_bytes()
    for _ in range(2):
        spkmd(*LJ, "overwrite=true", callbacks="[checkpoint,hdf5]", steps=4)
    assert Path("out.old.1/simulation.hdf5").read_bytes() == old
    assert {path.name for path in Path().glob("out*")} == {"out", "out.old.1", "out.old.2"}


def test_sweep_is_refused_before_its_first_job(folder, monkeypatch):
    """Repeated, or into one folder: nothing is touched. With ``overwrite`` only the old runs of the sweep are moved."""

    def sweep(*overrides):
        names = ("-m", *LJ, "system.molecule_file=start.traj", "dynamics.n_steps=2", "dynamics.progress=false")
        monkeypatch.setattr(sys, "argv", ["spkmd", *names, "callbacks=[checkpoint,hdf5]", *overrides])
        cli.simulate()
        monkeypatch.chdir(folder)

    def files():
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    by_seed = "simulation_dir=out_${seed}"
    before = files()
    with pytest.raises(SystemExit, match=r"two jobs would write to simulation_dir='out'.*out_\$\{seed\}"):
        sweep("seed=1,2", "simulation_dir=out")
    assert files() == before
    sweep("seed=2", by_seed)
    before = files()
    with pytest.raises(SystemExit, match=r"'out_2' holds a run already.*restart=out_2/checkpoint\.chk.*overwrite=true"):
        sweep("seed=1,2", by_seed)
    assert files() == before
    sweep("seed=1,2", by_seed, "overwrite=true")
    sweep("seed=1,2", by_seed, "restart=${simulation_dir}/checkpoint.chk")
    sweep("seed=3,3", "simulation_dir='by_number_${hydra:job.num}'")
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        *("out_1", "out_2", "out_2.old.1", "by_number_0", "by_number_1")
    }
    for name, entries in (("out_1", 4), ("out_2", 4), ("out_2.old.1", 2)):
        data = HDF5Loader(f"{name}/simulation.hdf5")
        assert data.entries == entries
        data.database.close()


def test_only_the_own_checkpoint_continues_a_folder(folder):
    """A run that began from another's checkpoint does not begin there again in its own folder."""
    spkmd(*LJ, "simulation_dir=first", callbacks="[checkpoint,hdf5]")
    again = (*LJ, "restart=first/checkpoint.chk")
    spkmd(*again, callbacks="[checkpoint,hdf5]")
    with pytest.raises(SystemExit, match=r"'out' holds a run already.*restart=out/checkpoint\.chk"):
        spkmd(*again, callbacks="[checkpoint,hdf5]")


def test_restart_continues(folder):
    overrides = (*LJ, "system/initializer=frames")
    first, whole = "[checkpoint,hdf5]", spkmd(*overrides, "simulation_dir=whole", steps=6)
    spkmd(*overrides, callbacks=first, steps=3)
    state = spkmd(*overrides, "restart=out/checkpoint.chk", callbacks=first, steps=3)
    torch.testing.assert_close(state["positions"], whole["positions"], rtol=0.0, atol=1e-12)
    data = HDF5Loader("out/simulation.hdf5")
    assert data.entries == 6
    data.database.close()


@pytest.mark.parametrize("neighbor_list", ["verlet", "matscipy"])
def test_load_config(folder, models, neighbor_list):
    """A run's own config as input. It is merged into the defaults, so groups that are not the default are named again."""
    groups = ["system/initializer=frames", f"calculator/neighbor_list={neighbor_list}"]
    cutoff = ["calculator.neighbor_list.cutoff=5.0"] if neighbor_list == "matscipy" else []
    spkmd(f"calculator.model_file={models[0]}", *groups, *cutoff, "precision=32", "simulation_dir=first")
    again = ["load_config=first/.hydra/config.yaml", "dynamics.integrator.time_step=0.25", "simulation_dir=second"]
    spkmd(*groups, *cutoff, *again)
    text = Path("second/.hydra/config.yaml").read_text()
    for line in (
        f"model_file: {models[0]}",
        "FramesInit",
        "precision: 32",
        "time_step: 0.25",
        "simulation_dir: second",
    ):
        assert line in text


def test_load_config_does_not_open_a_folder(folder):
    """It is a new run, unless it says otherwise, like the command line; and it is not written over unread."""
    spkmd(*LJ, callbacks="[checkpoint,hdf5]")
    before = Path("out/.hydra/config.yaml").read_bytes()
    Path("warmer.yaml").write_text("system: {initializer: {temperature: 500}}")
    Path("further.yaml").write_text("restart: out/checkpoint.chk")
    refused = {
        "load_config=warmer.yaml": "'out' holds a run already",
        "load_config=none.yaml": "none.yaml",
        "load_config=out/.hydra/config.yaml": "'out/.hydra/config.yaml' would be written over",
    }
    for override, words in refused.items():
        with pytest.raises(SystemExit, match=words):
            spkmd(*LJ, override)
    with pytest.raises(SystemExit, match="'out' holds a run already"):
        spkmd(*LJ, "load_config=further.yaml", "restart=null")
    assert Path("out/.hydra/config.yaml").read_bytes() == before
    spkmd(*LJ, "load_config=further.yaml", callbacks="[checkpoint,hdf5]")
    assert torch.load("out/checkpoint.chk", weights_only=False)["step"] == 4
    assert not list(Path().glob("out.*"))


def test_program_follows_the_trajectory(tmp_path):
    """The installed program, in an empty folder: velocity Verlet from the frame's velocities, as ASE does it."""
    atoms, steps = argon(), 20
    ase.io.write(tmp_path / "start.traj", atoms)
    command = [
        *(str(Path(sys.executable).with_name("spkmd")), *LJ, "system/initializer=frames", f"dynamics.n_steps={steps}"),
        *("system.molecule_file=start.traj", "simulation_dir=out"),
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr

    atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=50.0)
    start = atoms.positions.copy()
    dynamics = VelocityVerlet(atoms, 0.5 * ase.units.fs)
    positions, velocities = [], []
    for _ in range(steps):
        dynamics.run(1)
        positions.append(atoms.positions.copy())
        velocities.append(atoms.get_velocities() * ase.units.fs)  # Å/fs
    data = HDF5Loader(str(tmp_path / "out" / "simulation.hdf5"))
    np.testing.assert_allclose(10.0 * data.get_positions(), positions, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(10.0 * data.get_velocities() * spk_units.fs, velocities, rtol=0.0, atol=1e-9)
    assert np.abs(positions[-1] - start).max() > 0.01
    data.database.close()


def test_program_with_other_velocities_leaves_the_trajectory(folder):
    """Negative control: with SchNetPack's own initializer at the same place the run goes elsewhere."""
    frames = spkmd(*LJ, "system/initializer=frames", "simulation_dir=frames", steps=20)["positions"]
    control = [*LJ, "system.initializer.remove_center_of_mass=false", "system.initializer.temperature=1000"]
    uniform = spkmd(*control, "simulation_dir=uniform", steps=20)["positions"]
    assert 10.0 * (frames - uniform).abs().max() > 1e-3  # Å
