"""Each fault done to good trajectories is found, with its value, and is not taken for another."""

from dataclasses import replace

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from helpers.diagnosis_data import Path, check, join, keys, simulate
from schnetpack import properties as spk
from schnetpack.data import ASEAtomsData

from spk_dt import properties
from spk_dt.data import load_frames

FS = ase.units.fs


@pytest.fixture(scope="module")
def paths(cluster, embedded) -> dict[str, Path]:
    """Good trajectories: a cluster with hydrogen, a crystal at another time step, and one of the embedded data."""
    crystal = bulk("Cu", cubic=True).repeat((2, 2, 1))
    frames = load_frames(ASEAtomsData(str(embedded)))
    index = 8
    record = frames.trajectories[index]
    x, v, f, e = (
        frames.window(key, record.start, 200, index) for key in (spk.R, properties.velocities, spk.forces, spk.energy)
    )
    carbon = Path(
        numbers=frames.atomic_numbers[index],
        masses=frames.masses[index],
        cell=frames.cell[record.start],
        pbc=frames.pbc[index],
        x=x.copy(),
        v=v * FS,
        f=f.copy(),
        e=e[:, 0].copy(),
        h=0.5,
    )
    return {
        "cluster": simulate(cluster, 200, 0.5, seed=3, equilibrate=50),
        "crystal": simulate(crystal, 150, 2.0, seed=1, equilibrate=20),
        "embedded": carbon,
    }


@pytest.fixture(params=["cluster", "crystal", "embedded"])
def path(request, paths) -> Path:
    return paths[request.param]


class Springs(Calculator):
    """Two molecules of two atoms each, held at a distance by springs."""

    implemented_properties = ("energy", "forces")

    def __init__(self, distance: float) -> None:
        super().__init__()
        self.distance = distance

    def calculate(self, atoms=None, properties=None, system_changes=()) -> None:
        super().calculate(atoms, properties, system_changes)
        forces, energy = np.zeros((4, 3)), 0.0
        for i, j in ((0, 1), (2, 3)):
            vector = atoms.positions[j] - atoms.positions[i]
            length = np.linalg.norm(vector)
            energy += 10.0 * (length - self.distance) ** 2
            forces[i] += 20.0 * (length - self.distance) * vector / length
            forces[j] -= 20.0 * (length - self.distance) * vector / length
        self.results = {"energy": energy, "forces": forces}


def scaled(path: Path, **factors: float) -> Path:
    return replace(path, **{key: getattr(path, key) * factor for key, factor in factors.items()})


def changed(path: Path, frame: int, **changes) -> Path:
    """One frame, or those of a slice, with other values."""
    arrays = {key: getattr(path, key).copy() for key in changes}
    for key, change in changes.items():
        arrays[key][frame] = change(arrays[key][frame])
    return replace(path, **arrays)


def without(path: Path, *frames: int) -> Path:
    return path.take(np.delete(np.arange(len(path)), frames))


def reordered(path: Path, first: int, *order: int) -> Path:
    frames = np.arange(len(path))
    frames[first : first + len(order)] = first + np.array(order)
    return path.take(frames)


def shuffled(path: Path) -> Path:
    return path.take(np.random.default_rng(0).permutation(len(path)))


def half_step(path: Path, sign: float) -> Path:
    return replace(path, v=path.v + sign * 0.5 * path.h * path.f / path.masses[:, None] * FS**2)


def shift(path: Path, **by: int) -> Path:
    """Values of each frame found some frames later."""
    far = max(abs(n) for n in by.values())
    arrays = {key: getattr(path, key)[far - by.get(key, 0) : len(path) - far - by.get(key, 0)] for key in "xvfe"}
    return replace(path, **arrays)


def momenta(path: Path, factor: float = 1.0) -> Path:
    return replace(path, v=path.v * path.masses[:, None] * factor)


def jump(path: Path, frame: int, atom: int, by: np.ndarray, last: int | None = None) -> Path:
    x = path.x.copy()
    x[frame:last, atom] += by
    return replace(path, x=x)


def wrapped(path: Path) -> Path:
    """With atoms moved along so that several cross the border, and back into the cell."""
    cell = np.diag([50.0, 50.0, 50.0]) if not path.cell.any() else path.cell
    box = np.linalg.inv(cell)
    middle = (path.x[len(path) // 2] @ box)[len(path.numbers) // 2]
    fractional = path.x @ box - middle
    return replace(path, x=(fractional - np.floor(fractional)) @ cell, cell=cell, pbc=np.ones(3, dtype=bool))


def heavy(path: Path, z: int, factor: float) -> Path:
    """Said to have another mass than it had."""
    return replace(path, masses=np.where(path.numbers == z, path.masses * factor, path.masses))


FAULTS = {
    "time_step": [
        lambda p: replace(p, h=2.0 * p.h),
        lambda p: replace(p, h=0.3 * p.h),
        lambda p: replace(p, h=1.04 * p.h),
    ],
    "velocity_unit": [lambda p: scaled(p, v=0.0982), lambda p: scaled(p, v=100.0), lambda p: scaled(p, v=1.3)],
    "reversed": [lambda p: scaled(p, v=-1.0), lambda p: p.take(slice(None, None, -1))],
    "momenta": [momenta, lambda p: momenta(p, 1.0 / FS)],
    "half_step_velocities": [lambda p: half_step(p, 1.0), lambda p: half_step(p, -1.0)],
    "velocity_shift": [lambda p: shift(p, v=1), lambda p: shift(p, v=-1)],
    "velocities_unrelated": [lambda p: replace(p, v=np.random.default_rng(0).permutation(p.v))],
    "zero_velocities": [lambda p: scaled(p, v=0.0)],
    "force_sign": [lambda p: scaled(p, f=-1.0)],
    "force_unit": [lambda p: scaled(p, f=1.0 / 51.42207), lambda p: scaled(p, f=23.06), lambda p: scaled(p, f=1.7)],
    "force_shift": [lambda p: shift(p, f=1), lambda p: shift(p, f=-1), lambda p: shift(p, f=1, e=1)],
    "energy_unit": [lambda p: scaled(p, e=1.0 / 27.2114), lambda p: scaled(p, e=23.06), lambda p: scaled(p, e=1.7)],
    "energy_and_force_unit": [lambda p: scaled(p, e=23.06, f=23.06), lambda p: scaled(p, e=0.6, f=0.6)],
    "energy_shift": [lambda p: shift(p, e=1), lambda p: shift(p, e=-1)],
    "energy_unrelated": [
        lambda p: replace(p, e=np.random.default_rng(0).permutation(p.e)),
        lambda p: replace(p, e=np.full(len(p), -1.0)),
    ],
    "energy_jump": [
        lambda p: changed(p, slice(70, None), e=lambda e: e + 3.0),
        lambda p: changed(p, 70, e=lambda e: e + 3.0),
    ],
    "length_unit": [lambda p: replace(scaled(p, x=1.0 / 0.529177), cell=p.cell / 0.529177)],
    "thinned": [lambda p: replace(p.every(2), h=p.h, inner=1), lambda p: replace(p.every(4), h=p.h, inner=1)],
    "dropped_frames": [
        lambda p: without(p, 40),
        lambda p: without(p, 40, 41, 90),
        lambda p: without(p, *range(10, 140, 10)),
    ],
    "duplicated_frames": [
        lambda p: p.take(np.sort(np.append(np.arange(len(p)), 50))),
        lambda p: p.take(np.sort(np.append(np.arange(len(p)), [50, 50, 51, 90]))),
    ],
    "out_of_order": [lambda p: reordered(p, 60, 1, 0), lambda p: reordered(p, 60, *range(9, -1, -1))],
    "not_consecutive": [shuffled],
    "corrupted_frame": [
        lambda p: changed(p, 50, x=lambda x: x + 0.3 * np.random.default_rng(0).standard_normal(x.shape)),
        lambda p: jump(p, 50, 3, [0.0, 0.8, 0.0], 51),
        lambda p: changed(p, 50, v=lambda v: 0.0 * v),
        lambda p: changed(p, 0, v=lambda v: 0.0 * v),
        lambda p: changed(p, 50, f=lambda f: 3.0 * f),
    ],
    "jump": [lambda p: jump(p, 50, 3, [0.0, 0.8, 0.0])],
    "not_finite": [
        lambda p: changed(p, 50, x=lambda x: np.nan * x),
        lambda p: changed(p, 50, e=lambda e: np.inf),
        lambda p: changed(p, 50, v=lambda v: 1e200 * v),
    ],
    "wrapped": [wrapped],
}


#: what the check must measure, by fault and its number: name of the value, and the value
MEASURED = {
    ("time_step", 0): ("factor", 0.5),
    ("time_step", 1): ("factor", 1 / 0.3),
    ("time_step", 2): ("factor", 1 / 1.04),
    ("velocity_unit", 0): ("factor", 1 / FS),
    ("velocity_unit", 1): ("factor", 0.01),
    ("velocity_unit", 2): ("factor", 1 / 1.3),
    ("half_step_velocities", 0): ("early_by_steps", -0.5),
    ("half_step_velocities", 1): ("early_by_steps", 0.5),
    ("velocity_shift", 0): ("early_by_steps", 1.0),
    ("force_shift", 0): ("frames", 1),
    ("force_shift", 1): ("frames", -1),
    ("force_unit", 0): ("factor", 51.42207),
    ("force_unit", 2): ("factor", 1 / 1.7),
    ("energy_unit", 0): ("factor", 27.2114),
    ("energy_unit", 2): ("factor", 1 / 1.7),
    ("energy_and_force_unit", 1): ("factor", 1 / 0.6),
    ("energy_shift", 0): ("frames", 1),
    ("energy_shift", 1): ("frames", -1),
    ("energy_jump", 0): ("ev", 3.0),
    ("length_unit", 0): ("factor", 0.529177),
    ("thinned", 0): ("every", 2),
    ("thinned", 1): ("every", 4),
}
#: frames that it must name
FRAMES = {
    ("energy_jump", 0): [69],
    ("energy_jump", 1): [70],
    ("dropped_frames", 0): [39],
    ("dropped_frames", 1): [39, 87],
    ("duplicated_frames", 0): [50],
    ("corrupted_frame", 0): [50],
    ("corrupted_frame", 1): [50],
    ("corrupted_frame", 2): [50],
    ("corrupted_frame", 3): [0],
    ("corrupted_frame", 4): [50],
    ("jump", 0): [49],
    ("not_finite", 0): [50],
}
#: words of which the sentence must consist, beside the numbers
SAID = {
    ("velocity_unit", 0): "taken for the unit of ASE",
    ("velocity_unit", 1): "nm/ps",
    ("force_unit", 0): "in Hartree/Bohr",
    ("force_unit", 1): "in kcal/mol/Å",
    ("energy_unit", 0): "in Hartree",
    ("energy_and_force_unit", 0): "in kcal/mol",
    ("length_unit", 0): "in Bohr",
    ("corrupted_frame", 0): "positions in frame 50",
    ("corrupted_frame", 1): "positions of atom 3",
    ("corrupted_frame", 2): "velocities in frame 50",
    ("corrupted_frame", 3): "velocities in frame 0",
    ("corrupted_frame", 4): "forces in frame 50",
    ("jump", 0): "jumps by 0.8 Å",
    ("dropped_frames", 1): "3 frames are missing, after frames 39, 87",
    ("thinned", 1): "--save-every 4",
}
ALL = [(key, i) for key, faults in FAULTS.items() for i in range(len(faults))]


def test_good_trajectories_are_ok(path):
    diagnosis = check(path)
    assert diagnosis.findings == ()
    assert diagnosis.verdict == "ok"
    assert diagnosis.displaced < 1e-5
    assert diagnosis.energy_slope == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("key", "number"), ALL)
def test_a_fault_is_found_and_not_taken_for_another(path, key, number):
    diagnosis = check(FAULTS[key][number](path))
    assert [finding.key for finding in diagnosis.findings] == [key], [str(finding) for finding in diagnosis.findings]
    finding = diagnosis.findings[0]
    assert diagnosis.verdict == ("ok" if key == "wrapped" else "refused")
    assert finding.remedy
    if (key, number) in MEASURED:
        name, value = MEASURED[key, number]
        assert finding.values[name] == pytest.approx(value, rel=0.03)
    if (key, number) in FRAMES:
        assert list(finding.frames) == FRAMES[key, number]
    if (key, number) in SAID:
        assert SAID[key, number] in str(finding)


def test_every_fault_has_another_sentence(paths):
    """A check that always said the same would fail here."""
    said = {(key, str(check(FAULTS[key][number](paths["cluster"])).findings[0])) for key, number in ALL}
    assert len(said) > len(FAULTS)
    assert len({text for _, text in said}) == len(said)


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize(
    "key", ["dropped_frames", "duplicated_frames", "out_of_order", "jump", "force_sign", "not_finite"]
)
def test_faults_are_found_without_velocities_of_the_simulation(path, key, central):
    """Velocities from the positions of good frames, and of those with the fault."""
    fault = FAULTS[key][0]
    faulty = fault(path.with_central_differences()) if central else fault(path).with_central_differences()
    found = check(faulty).findings
    assert {finding.key for finding in found} <= {key, "corrupted_frame"} if key == "out_of_order" else {key}
    assert found


def test_a_wrong_time_step_without_velocities_says_what_else_it_could_be(path):
    (finding,) = check(replace(path, h=2.0 * path.h).with_central_differences()).findings
    assert finding.key == "time_step"
    assert finding.values["timestep_fs"] == pytest.approx(path.h, rel=0.01)
    assert "unit of energy and force were another, by a factor 0.25" in finding.text


def test_energies_and_forces_in_hartree_without_velocities_say_what_else_it_could_be(path):
    (finding,) = check(scaled(path, e=1 / 27.2114, f=1 / 27.2114).with_central_differences()).findings
    assert finding.key == "energy_and_force_unit"
    assert f"the frames were {path.h * 27.2114**0.5:.3g} fs apart" in finding.text


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda p: replace(scaled(p, v=0.0982), h=2.0 * p.h), ["time_step", "velocity_unit"]),
        (lambda p: scaled(p, v=0.0982, f=23.06), ["velocity_unit", "force_unit"]),
        (lambda p: scaled(p, f=-23.06), ["force_sign", "force_unit"]),
        (lambda p: scaled(p, e=1 / 27.2114, f=1 / 51.42207), ["force_unit", "energy_unit"]),
    ],
)
def test_two_faults_are_both_told(path, fault, expected):
    assert [finding.key for finding in check(fault(path)).findings] == expected


def test_another_run_glued_to_the_first(path, paths, cluster):
    other = simulate(cluster, 60, 0.5, seed=9) if len(path.numbers) == 6 else path.take(slice(120, None))
    turned = other if len(path.numbers) == 6 else replace(other, x=other.x[..., ::-1], v=other.v[..., ::-1])
    (finding,) = check(join(path.take(slice(0, 70)), turned)).findings
    assert finding.key == "glued_runs"
    assert list(finding.frames) == [69]


@pytest.mark.parametrize("central", [False, True])
def test_velocities_drawn_anew(central):
    steps = iter(range(1000))

    def during(atoms):
        if next(steps) == 69:
            MaxwellBoltzmannDistribution(atoms, temperature_K=600, rng=np.random.default_rng(5))

    path = simulate(bulk("Cu", cubic=True).repeat((2, 2, 1)), 150, 2.0, seed=4, during=during)
    (finding,) = check(path.with_central_differences() if central else path).findings
    assert finding.key == "restarted"
    assert abs(finding.frames[0] - 69) <= 1


@pytest.mark.parametrize(("distance", "key"), [(1.1, None), (0.3, "overlap")])
def test_overlapping_atoms(distance, key):
    springs = Springs(distance)
    atoms = Atoms("C4", positions=[[0.0, 0, 0], [distance, 0, 0], [0, 5.0, 0], [0, 5.0, distance]])
    path = simulate(atoms, 60, 1.0, kelvin=30.0, calculator=springs)
    found = check(path).findings
    assert [finding.key for finding in found] == ([key] if key else [])
    if key:
        assert "0.3 Å apart" in found[0].text or "0.29 Å apart" in found[0].text


def test_a_lost_periodicity_is_named(paths):
    path = paths["crystal"]
    jumped = jump(replace(path, pbc=np.zeros(3, dtype=bool)), 60, 5, path.cell[1])
    (finding,) = check(jumped).findings
    assert finding.key == "jump"
    assert "a lattice vector, but the cell is not said to be periodic" in finding.text
    assert "periodic boundary conditions" in finding.remedy


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_momenta_of_a_single_element_are_recognised_if_their_unit_is(paths, factor):
    (finding,) = check(momenta(paths["crystal"], factor)).findings
    assert finding.key == ("momenta" if factor == 1.0 else "velocity_unit")


@pytest.mark.parametrize(("length", "key"), [(1, "too_few_frames"), (2, "too_few_frames"), (3, None), (5, None)])
def test_few_frames(path, length, key):
    diagnosis = check(path.take(slice(0, length)))
    assert [finding.key for finding in diagnosis.findings] == ([key] if key else [])
    assert diagnosis.verdict == ("warning" if key else "ok")


def test_five_frames_are_enough_for_units(path):
    short = path.take(slice(0, 5))
    assert keys(check(replace(short, h=2.0 * path.h))) == ["time_step"]
    assert keys(check(scaled(short, v=0.0982))) == ["velocity_unit"]
    assert keys(check(scaled(short, f=-1.0))) == ["force_sign"]


def test_atoms_that_stand_still(path):
    x = np.broadcast_to(path.x[0], path.x.shape).copy()
    assert keys(check(replace(path, x=x))) == ["no_motion"]


def test_it_reads_in_pieces_what_it_reads_at_once(path, monkeypatch):
    faulty = jump(without(path, 40), 90, 3, [0.0, 0.8, 0.0], 91)
    whole, whole_faulty = check(path), check(faulty)
    monkeypatch.setattr("spk_dt.trajectories.diagnosis.pieces._PIECE", 16 * 3 * len(path.numbers))
    pieces, pieces_faulty = check(path), check(faulty)
    assert pieces_faulty.findings == whole_faulty.findings
    assert [f.key for f in pieces_faulty.findings] == ["dropped_frames", "corrupted_frame"]
    for name in ("temperature_k", "residual", "displaced", "drift_mev_per_atom_per_ps", "energy_slope"):
        assert getattr(pieces, name) == pytest.approx(getattr(whole, name), rel=1e-6)
