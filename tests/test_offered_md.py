"""What the comments of ``configs/md`` offer runs: every value beside a key, in two steps of a simulation."""

import stat
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from helpers.models import two_schnets
from helpers.offers import offers
from helpers.programs import spkmd
from schnetpack.md.data import HDF5Loader

from spk_dt.data.start_frames import start_frames
from spk_dt.trajectories.convert import convert

pytestmark = pytest.mark.usefixtures("quiet_hydra")

CONFIGS = Path(__file__).parents[1] / "configs" / "md"
FILES = {str(file.relative_to(CONFIGS).with_suffix("")): file for file in sorted(CONFIGS.rglob("*.yaml"))}
#: said in comments, but no values of the key beside them
NO_OFFERS = {
    ("calculator/lj", "", "r_equilibrium"), ("calculator/lj", "", "well_depth"),
    ("calculator/orca", "orca_template", "{geometry}"), ("calculator/orca", "orca_template", "*"),
    ("calculator/orca", "orca_template", "* xyz 0 1"),
    ("callbacks/checkpoint", "", "restart"), ("callbacks/compare", "", "restart"), ("callbacks/hdf5", "filename", "restart"),
    ("callbacks/compare", "", "spkdt frames"), ("dynamics/barostat/pile_rpmd", "_target_", "restart"),
    ("calculator/spk", "model_file", "runs/x/best_model"),
    ("config", "", "spkmd"), ("config", "", ".hydra/config.yaml"), ("config", "chdir", "false"),
    *((f"calculator/neighbor_list/{name}", "", "verlet") for name in ("ase", "matscipy", "torch", "vesin")),
}  # fmt: skip
#: offered, and run by another test, where words are found
ELSEWHERE = {
    ("config", "overwrite", "true"): ("test_md_configs.py", "test_overwrite_moves_the_old_run_aside"),
    ("config", "overwrite", "false"): ("test_md_configs.py", "test_second_run_into_the_same_folder_is_refused"),
    ("config", "sweep", "seed=1,2"): ("test_md_configs.py", '"seed=1,2"'),
    ("config", "sweep", "'simulation_dir=out_${seed}'"): ("test_md_configs.py", 'simulation_dir=out_${seed}"'),
    ("system/initializer/uniform", "temperature", "a list with one for each molecule"): (
        "test_md_configs.py",
        "takes_a_temp",
    ),
}
LJ = ["calculator=lj", "calculator/neighbor_list=matscipy", "calculator.neighbor_list.cutoff=5.0"]
RPMD = ["dynamics/integrator=rpmd", "system.n_replicas=2"]
ALL = [
    (path, key, value)
    for path, file in FILES.items()
    for key, value in sorted(offers(file))
    if (path, key, value) not in NO_OFFERS and (path, key, value) not in ELSEWHERE
]

PARAMETERS = [pytest.param(*one, id=" ".join(one), marks=[pytest.mark.gpu] * ("cuda" in one)) for one in ALL]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two small models of SchNetPack, which are of no unit."""
    return two_schnets(tmp_path_factory.mktemp("models"), 1, 4.0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = bulk("Ar", cubic=True, a=5.1)
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.02, size=(4, 3)))
    ase.io.write("start.traj", atoms)
    return tmp_path


ORCA = """#!{python}
import sys
n = sum(line[:2] == "Ar" for line in open(sys.argv[1]))
print("FINAL SINGLE POINT ENERGY      -1.0")
print("------------------\\nCARTESIAN GRADIENT\\n------------------\\n")
for i in range(n):
    print(i + 1, " Ar   :   0.001 0.0 -0.001")
print("\\nDifference to translation invariance:")
print("Total Dipole Moment    :      0.1       0.2       0.3")
print("The raw cartesian tensor (atomic units):\\n1.0 0.0 0.0\\n0.0 1.0 0.0\\n0.0 0.0 1.0\\ndiagonalized tensor:")
print("CHEMICAL SHIFTS")
for i in range(n):
    print("Total shielding tensor (ppm):\\n1.0 0.0 0.0\\n0.0 2.0 0.0\\n0.0 0.0 3.0\\nDiagonalized sT*s matrix:")
print("CHEMICAL SHIELDING SUMMARY")
"""


def base(path, models):
    """Overrides with which a config is used."""
    group, _, name = path.rpartition("/")
    found = LJ
    if path in ("calculator/spk", "callbacks/hdf5", "calculator/neighbor_list/verlet"):
        found = [f"calculator.model_file={models[0]}"]
    elif path == "calculator/spk_ensemble":
        found = ["calculator=spk_ensemble", f"calculator.model_files=[{models[0]},{models[1]}]"]
    elif path == "calculator/orca":
        program = Path("orca").resolve()
        program.write_text(ORCA.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        Path("template.inp").write_text("! HF EnGrad\n* xyz 0 1\n{geometry}\n*\n")
        found = ["calculator=orca", f"calculator.qm_executable={program}", "calculator.orca_template=template.inp"]
    elif group == "calculator/neighbor_list":
        found = ["calculator=lj", f"calculator/neighbor_list={name}", "calculator.neighbor_list.cutoff=5.0"]
    elif group == "callbacks":
        found = [*LJ, f"callbacks=[checkpoint,{name}]"]
    elif group == "system/initializer":
        found = [*LJ, f"{group}={name}"]
    elif group in ("dynamics/thermostat", "dynamics/barostat"):
        ring = "rpmd" in FILES[path].read_text()
        found = [*LJ, f"+{group}={name}", *(RPMD if ring else [])]
        if group == "dynamics/barostat":
            found += ["calculator.stress_key=stress"]
        if "gle_file" in FILES[path].read_text():
            n = 2 if name == "piglet" else 1
            Path("matrices").write_text(matrices(n))
            found += [f"dynamics.thermostat.gle_file={Path('matrices').resolve()}"]
    return found


def matrices(n):
    """Made-up friction and covariance of 300 K in the format of gle4md.org."""
    text = ""
    for title, rows in (
        ("# A MATRIX: (picoseconds^-1)\n", " 10.0 0.5\n -0.5 20.0\n"),
        ("# C MATRIX: (K)\n", f" {300 * n} 0.0\n 0.0 {300 * n}\n"),
    ):
        text += title + "".join((f"# Matrix for normal mode {i}\n" if n > 1 else "") + rows for i in range(n))
    return text


def overrides(path, key, value, models):
    """What sets the value."""
    if "=" in value:
        value = value.rstrip("=")
        return {
            "calculator=...": LJ,
            "calculator/neighbor_list": ["calculator/neighbor_list=verlet"],
            "+dynamics/barostat": ["+dynamics/barostat=nhc_iso", "calculator.stress_key=stress"],
            "+dynamics/thermostat": ["+dynamics/thermostat=langevin"],
            "calculator=spk": ["calculator=spk", f"calculator.model_file={models[0]}"],
            "calculator.model_file=runs/x/best_model": [
                *("calculator=spk", "calculator/neighbor_list=verlet", "calculator.neighbor_list.cutoff=null"),
                f"calculator.model_file={models[0]}",
            ],
            "calculator.model_files=[runs/a/best_model,runs/b/best_model]": [],
            "dynamics/integrator=rpmd": RPMD,
        }.get(value, [value])
    group = path.rpartition("/")[0]
    names = {"config": "", "system/system": "system.", "dynamics/base": "dynamics."}
    prefix = names.get(path, (path if group == "callbacks" else group).replace("/", ".") + ".")
    if key in ("initializer", "integrator") and value != "null":
        return [f"{group}/{key}={value}"]
    return {
        "base_nbl": [f"{prefix}base_nbl=schnetpack.transform.{value}"],
        "required_properties": [
            f"{prefix}required_properties=[" + ("energy,forces," if path == "calculator/orca" else "") + f"{value}]"
        ],
        "simulation_hooks": [
            "dynamics.simulation_hooks=[{_target_:" + value + ",every_n_steps:1,remove_rotation:false}]"
        ],
        "store_velocities": [
            "callbacks.hdf5.data_streams=[{_target_:spk_dt.md.MoleculeStream,store_velocities:false}]"
        ],
    }.get(key, [f"{prefix}{key}={value}"])


@pytest.mark.parametrize(("path", "key", "value"), PARAMETERS)
def test_what_is_offered_runs(models, request, path, key, value):
    if path == "callbacks/compare":
        embedded = request.getfixturevalue("embedded")
        ase.io.write("start.traj", start_frames(embedded, number=1))
    given = [*base(path, models), *overrides(path, key, value, models)]
    if path == "callbacks/compare":
        given += ["system/initializer=frames", f"calculator.model_file={models[0]}"]
        given = [one for one in given if one not in LJ] + (
            [] if key == "data" else [f"callbacks.compare.data={embedded}"]
        )
    callbacks = next((one.partition("=")[2] for one in given if one.startswith("callbacks=")), "[checkpoint,hdf5]")
    state = spkmd(*(one for one in given if not one.startswith("callbacks=")), callbacks=callbacks)
    assert bool(state["positions"].isfinite().all())
    if key == "required_properties":
        with_file = HDF5Loader("out/simulation.hdf5")
        assert np.isfinite(
            with_file.get_property(value, atomistic=value in ("forces", "forces_var", "shielding"))
        ).all()
        with_file.database.close()


def test_all_offers_are_seen():
    """A comment that is written anew is run by the test above, or is in one of the lists."""
    every = {(path, key, value) for path, file in FILES.items() for key, value in offers(file)}
    assert NO_OFFERS | set(ELSEWHERE) <= every, "no longer said"
    assert len(ALL) > 90
    for file, words in ELSEWHERE.values():
        assert words in (Path(__file__).parent / file).read_text()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("unit: eV # or: kcal / mol, Hartree", {("unit", "kcal / mol"), ("unit", "Hartree")}),
        ("order: 3 # of the scheme: 3, 5 or 7", {("order", "3"), ("order", "5"), ("order", "7")}),
        ("speed: null # m/s; null: that of light, which is `fast`", {("speed", "null"), ("speed", "fast")}),
        ("massive: false", {("massive", "true")}),
        ("# needs calculator.stress_key=stress.", {("", "calculator.stress_key=stress")}),
        ("keep: [] # names of outputs, such as forces, and so on", {("keep", "forces")}),
        ("length: 1.0 # in position_unit", set()),
    ],
)
def test_offers_of_a_comment(tmp_path, line, found):
    (tmp_path / "file.yaml").write_text(line)
    assert offers(tmp_path / "file.yaml") == found


def test_forces_are_stored_for_a_conversion(models):
    """As the message says of a file without them."""
    start = Atoms("Ar2", positions=[[0, 0, 0], [3.4, 0.2, 0.1]])
    ase.io.write("start.traj", start)
    with_model = [f"calculator.model_file={models[0]}", "callbacks.hdf5.buffer_size=5"]
    spkmd(*with_model, callbacks="[checkpoint,hdf5]", steps=30)
    with pytest.raises(ValueError, match=r"no forces .*calculator\.required_properties=\[forces\]"):
        convert(["out/simulation.hdf5"], "a.db")
    again = ["calculator.required_properties=[forces]", "simulation_dir=again"]
    spkmd(*with_model, *again, callbacks="[checkpoint,hdf5]", steps=30)
    assert convert(["again/simulation.hdf5"], "a.db")[0].trajectory.length > 20


def test_state_of_another_simulation(models):
    """``system.load_system_state``: positions and momenta of a checkpoint."""
    first = spkmd(*LJ, "simulation_dir=first")
    second = spkmd(
        *LJ, f"system.load_system_state={Path('first/checkpoint.chk').resolve()}", "dynamics.integrator.time_step=1e-9"
    )
    torch.testing.assert_close(second["positions"], first["positions"], rtol=0.0, atol=1e-9)
