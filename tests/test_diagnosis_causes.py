"""Slopes are explained by the fewest causes, and any factor on velocities, forces, energies or time step comes back."""

from dataclasses import replace

import pytest
from helpers.diagnosis_data import Path, check, simulate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spk_dt.trajectories.diagnosis.causes import Measured, explain
from spk_dt.trajectories.diagnosis.known_units import known_unit

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FACTOR = st.floats(0.02, 50.0).filter(lambda factor: abs(factor - 1.0) > 0.15)


@pytest.fixture(scope="module")
def path(cluster) -> Path:
    return simulate(cluster, 60, 0.5, seed=3, equilibrate=50)


def explained(force: float, velocity: float, energy: float, recovered: bool = False) -> list[list[str]]:
    measured = {"force": Measured(force, 0.02), "velocity": Measured(velocity, 0.01), "energy": Measured(energy, 0.05)}
    if recovered:
        del measured["velocity"]
    return [[cause.key for cause in one.causes] for one in explain(measured, recovered, atoms=6)]


@pytest.mark.parametrize(
    ("slopes", "expected"),
    [
        ((1.0, 1.0, 1.0), []),
        ((4.0, 2.0, 1.0), ["time_step"]),
        ((1.0, 10.18, 1.0), ["velocity_unit"]),
        ((1.0, -1.0, 1.0), ["velocity_sign"]),
        ((-1.0, 1.0, -1.0), ["force_sign"]),
        ((51.422, 1.0, 51.422), ["force_unit"]),
        ((1.0, 1.0, 1 / 27.211), ["energy_unit"]),
        ((1.0, 1.0, 1 / 6), ["energy_unit"]),
        ((27.211, 1.0, 1.0), ["energy_and_force_unit"]),
        ((1 / 0.529177, 1 / 0.529177, 0.529177), ["length_unit"]),
        ((4.0, 20.36, 1.0), ["time_step", "velocity_unit"]),
    ],
)
def test_the_fewest_causes(slopes, expected):
    assert explained(*slopes)[0] == expected


def test_without_velocities_time_step_and_unit_of_energy_cannot_be_told_apart():
    assert explained(4.0, 1.0, 1.0, recovered=True) == [["time_step"], ["energy_and_force_unit"]]
    assert explained(27.211, 1.0, 1.0, recovered=True) == [["energy_and_force_unit"], ["time_step"]]


def test_units_that_are_often_confused():
    assert known_unit("velocity_unit", 0.09823).words == "the unit of ASE (Å per 10.18 fs)"
    assert known_unit("velocity_unit", 21.877).words.startswith("atomic units")
    assert known_unit("velocity_unit", 1e-5).words == "m/s"
    assert known_unit("force_unit", 0.04336).words == "kcal/mol/Å"
    assert known_unit("force_unit", 1.8897).words == "eV/Bohr"
    assert known_unit("energy_unit", 39.0, atoms=39).words == "eV per atom"
    assert known_unit("energy_unit", 1.234) is None


@pytest.mark.parametrize(
    ("array", "key", "tolerance"),
    [("v", "velocity_unit", 0.02), ("f", "force_unit", 0.03), ("e", "energy_unit", 0.03), ("h", "time_step", 0.01)],
)
@QUICK
@given(factor=FACTOR)
def test_any_factor_comes_back(path, array, key, tolerance, factor):
    """On velocities, forces, energies, or the time step."""
    (finding,) = check(replace(path, **{array: getattr(path, array) * factor})).findings
    assert finding.key == key
    assert finding.values["factor"] == pytest.approx(1.0 / factor, rel=tolerance)
