"""What a check names as a remedy leads to right data: spoil, check, do what is said, compare."""

from dataclasses import replace

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from helpers.diagnosis_data import Path, check, join, simulate
from helpers.round_trip import mended, mended_in_memory, read, same, scaled, write
from helpers.springs import MorseBonds

HA, RY, BOHR, NM = ase.units.Hartree, ase.units.Rydberg, ase.units.Bohr, 10.0
KCAL, KJ = ase.units.kcal / ase.units.mol, ase.units.kJ / ase.units.mol
AUT = ase.units.AUT / ase.units.fs  # fs
FS = ase.units.fs


def bonded(atoms: Atoms, steps: int, h: float, kelvin: float = 300.0, seed: int = 0) -> Path:
    return simulate(atoms, steps, h, kelvin, seed, equilibrate=20, calculator=MorseBonds(atoms))


def heavy_water() -> Atoms:
    water = molecule("H2O")
    water.set_masses([15.999, 2.014, 2.014])
    return water


@pytest.fixture(scope="module")
def paths(cluster) -> dict[str, Path]:
    """Sound trajectories, with velocities of the simulation and from the positions."""
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    found = {
        "metal": simulate(bulk("Cu", cubic=True).repeat((2, 1, 1)), 40, 2.0, 300.0, 1, equilibrate=20),
        "cluster": simulate(cluster, 60, 0.5, 300.0, 3, equilibrate=50),
        "salt": bonded(salt, 40, 2.0),
        "alcohol": bonded(molecule("CH3CH2OH"), 60, 0.5),
        "heavy water": bonded(heavy_water(), 60, 0.5, seed=2),
    }
    return found | {f"{name}, positions": path.with_central_differences() for name, path in found.items()}


SYSTEMS = ["metal", "cluster", "salt", "alcohol", "heavy water"]
BOTH = [f"{name}{how}" for name in SYSTEMS for how in ("", ", positions")]

#: by what numbers are spoilt: factors of the numbers, which are those of the unit that they are written in
UNITS = {
    "Bohr": {"x": 1 / BOHR},
    "nm": {"x": 1 / NM},
    "Hartree energies": {"e": 1 / HA},
    "kcal/mol energies": {"e": 1 / KCAL},
    "kJ/mol energies": {"e": 1 / KJ},
    "Rydberg energies": {"e": 1 / RY},
    "Hartree/Bohr forces": {"f": BOHR / HA},
    "kcal/mol/Å forces": {"f": 1 / KCAL},
    "kJ/mol/nm forces": {"f": NM / KJ},
    "eV/Bohr forces": {"f": BOHR},
    "Hartree": {"e": 1 / HA, "f": 1 / HA},
    "gradients": {"f": -1.0},
    "gradients in Hartree/Bohr": {"f": -BOHR / HA},
    "kcal/mol with gradients": {"e": 1 / KCAL, "f": -1 / KCAL},
    "Bohr, eV/Bohr": {"x": 1 / BOHR, "f": BOHR},
    "Hartree and Hartree/Bohr, Å": {"e": 1 / HA, "f": BOHR / HA},
    "atomic units": {"x": 1 / BOHR, "e": 1 / HA, "f": BOHR / HA, "v": AUT / BOHR},
    "atomic units, velocities in Å/fs": {"x": 1 / BOHR, "e": 1 / HA, "f": BOHR / HA},
    "Rydberg atomic units": {"x": 1 / BOHR, "e": 1 / RY, "f": BOHR / RY},
    "GROMACS": {"x": 1 / NM, "e": 1 / KJ, "f": NM / KJ, "v": 1e3 / NM},
    "LAMMPS real": {"e": 1 / KCAL, "f": 1 / KCAL},
    "LAMMPS metal": {"v": 1e3},
}
#: and time steps, which are ambiguous with energies and forces where velocities do not say more
TIMES = {
    "twice the time step": {"h": 2.0},
    "a third of the time step": {"h": 1 / 3},
    "atomic units of time": {"h": 1 / AUT},
    "ps for fs": {"h": 1e-3},
    "the unit of ASE": {"h": FS},
    "time step and Bohr": {"x": 1 / BOHR, "h": 2.0},
    "time step and Hartree": {"e": 1 / HA, "h": 2.0},
    "time step and velocities": {"v": FS, "h": 2.0},
    "time step and gradients": {"f": -1.0, "h": 0.5},
}


def assert_mended(spoilt: Path, sound: Path, folder, in_memory: bool = False) -> None:
    """One of the remedies makes the data equal to the sound ones, which are then accepted; where it is not the first, the
    others are said with how to tell."""
    wrong = []
    for which in range(6):
        ((path, then),), said, remedy = mended_in_memory(spoilt, which) if in_memory else mended(spoilt, folder, which)
        differs = same(path, sound)
        if not differs:
            assert then.verdict == "ok", [str(finding) for finding in then.findings]
            if which > 0:
                assert sound.velocities != "file", f"{said.remedies} in the wrong order"
                assert "the same would show" in str(said.findings[-1])
                assert any(word in str(said.findings[-1]) for word in ("temperature", "input"))
            return
        wrong.append(f"{remedy}: differs in {differs}, {[str(finding) for finding in said.findings]}")
        if which + 1 == len(said.remedies):
            break
    raise AssertionError("\n".join(wrong))


@pytest.mark.parametrize("how", ["", ", positions"])
@pytest.mark.parametrize("spoil", [*UNITS, *TIMES])
def test_units_and_time_step(paths, tmp_path, spoil, how):
    """Each on one system, which changes from one to the next; `test_on_every_system` takes all."""
    name = SYSTEMS[[*UNITS, *TIMES].index(spoil) % len(SYSTEMS)]
    units_and_time_step(paths[name + how], tmp_path, spoil)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("spoil", [*UNITS, *TIMES])
def test_on_every_system(paths, tmp_path, name, spoil):
    units_and_time_step(paths[name], tmp_path, spoil)


def units_and_time_step(sound: Path, folder, spoil: str) -> None:
    factors = {**UNITS, **TIMES}[spoil]
    recovered = sound.velocities != "file"
    if recovered and set(factors) == {"v"}:  # velocities that are not there cannot be wrong
        return
    spoilt = scaled(sound, **{key: factor for key, factor in factors.items() if not (recovered and key == "v")})
    assert_mended(spoilt, sound, folder, in_memory=True)


@pytest.mark.parametrize("how", ["", ", positions"])
@pytest.mark.parametrize("spoil", [name for name, factors in UNITS.items() if "x" in factors or "f" in factors])
def test_units_without_energies(paths, spoil, how):
    """Energies that are all zero: lengths and forces are mended; that energies are missing is said afterwards."""
    sound = replace(paths[f"alcohol{how}"], e=np.zeros(len(paths[f"alcohol{how}"])))
    factors = {key: value for key, value in UNITS[spoil].items() if key != "e" and not (how and key == "v")}
    ((path, then),), _, remedy = mended_in_memory(scaled(sound, **factors))
    assert same(path, sound) == [], remedy
    assert [finding.key for finding in then.findings] == ["energy_unrelated"]


def heavy(path: Path, masses: dict[int, float], momenta: bool = False) -> Path:
    """With other masses, by atom, than those that moved it; momenta are then divided by these."""
    wrong = path.masses.copy()
    for atom, mass in masses.items():
        wrong[atom] = mass
    v = path.v * (path.masses / wrong)[:, None] if momenta and path.velocities == "file" else path.v
    return replace(path, masses=wrong, v=v)


@pytest.mark.parametrize("how", ["", ", positions"])
@pytest.mark.parametrize("momenta", [False, True])
@pytest.mark.parametrize(
    ("name", "masses"),
    [
        ("heavy water", {1: 1.008, 2: 1.008}),  # deuterium written as H
        ("heavy water", {2: 1.008}),  # one of them
        ("heavy water", {0: 1.0, 1: 1.0, 2: 1.0}),  # all masses one
        ("alcohol", {3: 2.014}),  # D that was H, one atom
        ("alcohol", {0: 13.003, 1: 13.003}),  # carbon 13 that was not
        ("cluster", {4: 2.014, 5: 2.014}),
        ("salt", {i: 35.45 for i in range(8)}),  # all that of chlorine
    ],
)
def test_masses(paths, tmp_path, name, masses, momenta, how):
    assert_mended(heavy(paths[name + how], masses, momenta), paths[name + how], tmp_path, in_memory=True)


@pytest.mark.parametrize("units", ["atomic units", "kcal/mol with gradients", "Hartree"])
def test_masses_and_units(paths, tmp_path, units):
    """Slopes of groups come before one common factor."""
    sound = paths["heavy water"]
    assert_mended(scaled(heavy(sound, {1: 1.008, 2: 1.008}), **UNITS[units]), sound, tmp_path)


ORDER = {
    "reversed": lambda p: [p.take(slice(None, None, -1)), [p]],
    "velocities of the other sign": lambda p: [replace(p, v=-p.v), [p]],
    "repeated frames": lambda p: [p.take(np.sort(np.append(np.arange(len(p)), [12, 12, 13, 20]))), [p]],
    "a missing frame": lambda p: [
        p.take(np.delete(np.arange(len(p)), 15)),
        [p.take(slice(15)), p.take(slice(16, None))],
    ],
    "a wrong frame": lambda p: [wrong_frame(p, 15), [p.take(slice(15)), p.take(slice(16, None))]],
    "wrong forces": lambda p: [wrong_frame(p, 15, "f"), [p.take(slice(15)), p.take(slice(16, None))]],
    "not finite": lambda p: [wrong_frame(p, 15, "e", np.nan), [p.take(slice(15)), p.take(slice(16, None))]],
    "a jump": lambda p: [jump(p, 15), [jump(p, 15).take(slice(15)), jump(p, 15).take(slice(15, None))]],
    "two runs": lambda p: [
        join(p.take(slice(15)), p.take(slice(28, None))),
        [p.take(slice(15)), p.take(slice(28, None))],
    ],
    "momenta": lambda p: [replace(p, v=p.v * p.masses[:, None]), [recovered(p)]],
    "half a step early": lambda p: [half_step(p, -1.0), [recovered(p)]],
    "no velocities": lambda p: [replace(p, v=0.0 * p.v), [recovered(p)]],
    "others' velocities": lambda p: [replace(p, v=np.random.default_rng(0).permutation(p.v)), [recovered(p)]],
    "forces of the frame before": lambda p: [shifted(p, "f"), [p.take(slice(len(p) - 1))]],
    "energies of the frame before": lambda p: [shifted(p, "e"), [p.take(slice(len(p) - 1))]],
    "every other frame": lambda p: [replace(p.every(2), h=p.h, inner=1), [p.every(2)]],
    "every third frame": lambda p: [replace(p.every(3), h=p.h, inner=1), [p.every(3)]],
}


def wrong_frame(path: Path, frame: int, key: str = "x", value: float | None = None) -> Path:
    values = getattr(path, key).copy()
    noise = 0.3 * np.random.default_rng(0).standard_normal(values[frame].shape)
    values[frame] = values[frame] * (1.0 if key == "x" else 3.0) + noise if value is None else value
    return replace(path, **{key: values})


def jump(path: Path, frame: int) -> Path:
    x = path.x.copy()
    x[frame:, 1, 1] += 0.8
    return replace(path, x=x)


def recovered(path: Path) -> Path:
    return replace(path, velocities="central differences")


def half_step(path: Path, sign: float) -> Path:
    return replace(path, v=path.v + sign * 0.5 * path.h * path.f / path.masses[:, None] * FS**2)


def shifted(path: Path, key: str) -> Path:
    """Values of each frame are found at the frame after it."""
    return replace(path, **{key: np.concatenate([getattr(path, key)[:1], getattr(path, key)[:-1]])})


@pytest.mark.parametrize("name", [pytest.param("metal", marks=pytest.mark.slow), "alcohol"])
@pytest.mark.parametrize("spoil", ORDER)
def test_order_of_frames_and_their_velocities(paths, tmp_path, name, spoil):
    spoilt, sound = ORDER[spoil](paths[name])
    found, said, remedy = mended(spoilt, tmp_path, 1 if spoil == "velocities of the other sign" else 0)
    assert len(found) == len(sound), (remedy, [str(finding) for finding in said.findings])
    for (path, then), expected in zip(found, sound, strict=True):
        assert same(path, expected) == [], (remedy, [str(finding) for finding in said.findings])
        assert then.verdict != "refused", [str(finding) for finding in then.findings]
        assert then.verdict == check(expected).verdict


def test_turning_the_order_and_turning_the_velocities_both_give_sound_data(paths, tmp_path):
    found, _, remedy = mended(replace(paths["metal"], v=-paths["metal"].v), tmp_path)
    assert remedy == {"reverse": True}
    assert found[0][1].verdict == "ok"


@pytest.mark.parametrize("name", ["metal", "alcohol"])
def test_what_no_conversion_mends_names_none(paths, tmp_path, name):
    path = paths[name]
    swapped = np.arange(len(path))
    swapped[10:20] = swapped[10:20][::-1].copy()
    for number, (spoilt, word) in enumerate(
        [
            (path.take(np.random.default_rng(0).permutation(len(path))), "not in order"),
            (path.take(swapped), "order"),
            (replace(path, e=np.random.default_rng(0).permutation(path.e)), "energies do not belong to the forces"),
            (replace(path, e=np.zeros(len(path))), "the energy is the same in all frames"),
        ]
    ):
        ((_, said),) = read(write(spoilt, tmp_path / f"{number}.db"))
        assert (said.verdict, said.remedies) == ("refused", [])
        assert word in str(said.findings[0])
