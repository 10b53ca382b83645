"""Digits of printed numbers are part of what a check allows for; a thermostat that does more than they do is still found."""

from dataclasses import replace

import ase.units
import numpy as np
import pytest
from ase.build import bulk
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from helpers.diagnosis_data import Path, check, keys, simulate

from spk_dt.trajectories.diagnosis.rounding import spacing

FS = ase.units.fs
CRYSTAL = bulk("Cu", cubic=True).repeat((2, 2, 1))


@pytest.fixture(scope="module")
def paths(cluster) -> dict[str, Path]:
    return {
        "crystal": simulate(CRYSTAL, 240, 2.0, 300.0, 1, equilibrate=20),
        "short steps": simulate(CRYSTAL, 240, 0.5, 300.0, 1, equilibrate=20),
        "cluster": simulate(cluster, 240, 0.5, 300.0, 3, equilibrate=50),
        "large": simulate(CRYSTAL.repeat((1, 1, 2)), 60, 1.0, 300.0, 2),
    }


def printed(path: Path, x: int | None = None, v: int | None = None, f: int | None = None) -> Path:
    """With so many decimals; velocities from the positions, unless they are printed as well."""
    rounded = replace(path, x=path.x if x is None else path.x.round(x), f=path.f if f is None else path.f.round(f))
    return rounded.with_central_differences() if v is None else replace(rounded, v=path.v.round(v))


def warned(path: Path) -> list[str]:
    return [str(finding) for finding in check(path).findings if finding.severity != "note"]


@pytest.mark.parametrize("frames", [3, 5, 12, 60, 240])
@pytest.mark.parametrize("name", ["crystal", "short steps", "cluster", "large"])
@pytest.mark.parametrize(("x", "f"), [(5, 6), (6, 6), (4, 3), (8, 4)])
def test_sound_runs_with_few_decimals_are_not_warned_of(paths, name, frames, x, f):
    """Five decimals of positions and six of forces are those of OUTCAR."""
    assert warned(printed(paths[name].take(slice(frames + 2)), x=x, f=f)) == []


@pytest.mark.parametrize("name", ["crystal", "cluster", "large"])
@pytest.mark.parametrize(("x", "v", "f"), [(3, 5, 4), (5, 6, 6), (5, 7, 3)])
def test_velocities_that_are_printed(paths, name, x, v, f):
    path = paths[name]
    assert warned(printed(path, x, v, f)) == []
    momenta = replace(
        path, v=(path.v / FS * path.masses[:, None]).round(5) / path.masses[:, None] * FS, x=path.x.round(5)
    )
    assert warned(momenta) == []


def test_positions_of_three_decimals_are_said_but_only_where_they_matter(paths):
    """Velocities from them are off by more than a rollout should begin with."""
    (finding,) = check(printed(paths["short steps"], x=3)).findings
    assert (finding.key, finding.severity) == ("noise", "warning")
    assert finding.values["displaced"] > 0.05
    assert "rounded to few digits" in finding.text
    (finding,) = check(printed(paths["crystal"], x=4)).findings
    assert (finding.key, finding.severity) == ("noise", "note")


@pytest.mark.parametrize(("name", "x"), [("crystal", 4), ("cluster", 4), ("short steps", 4)])
def test_what_rounding_displaces_by_is_what_is_seen(paths, name, x):
    """Of the size that is computed, and of the noise that is seen if the digits are hidden by a little more of it."""
    path = printed(paths[name], x=x)
    finding = next(finding for finding in check(path).findings if finding.key == "noise")
    noise = 0.02 * 10.0**-x * np.random.default_rng(0).standard_normal(paths[name].x.shape)
    hidden = replace(paths[name], x=paths[name].x.round(x) + noise).with_central_differences()
    seen = check(hidden).displaced
    assert seen is not None
    assert 0.7 < finding.values["displaced"] / seen < 1.4


@pytest.mark.parametrize("x", [5, 4])
@pytest.mark.parametrize("thermostat", ["Langevin", "Nose-Hoover"])
def test_a_thermostat_is_found_though_numbers_are_rounded(x, thermostat):
    def make(atoms, step):
        if thermostat == "Langevin":
            rng = np.random.default_rng(5)
            return Langevin(atoms, step, temperature_K=300, friction=2e-3 / FS, fixcm=False, rng=rng)
        return NoseHooverChainNVT(atoms, step, temperature_K=600, tdamp=50 * FS)

    path = simulate(CRYSTAL, 240, 2.0, 300.0, 1, equilibrate=20, dynamics=make)
    assert keys(check(printed(path, x=x, f=6))) == ["thermostat"]
    (exact,), (seen,) = check(path).findings, check(printed(path, x=x, f=6)).findings
    assert seen.values["displaced"] == pytest.approx(exact.values["displaced"], rel=0.1)
    assert seen.severity == exact.severity


def test_other_faults_are_found_though_numbers_are_rounded(paths):
    path = printed(paths["crystal"], x=5, f=6)
    assert keys(check(replace(path, h=2.0 * path.h, v=0.5 * path.v))) == ["time_step"]
    assert keys(check(path.take(np.delete(np.arange(len(path)), 40)))) == ["dropped_frames"]
    noise = 0.02 * np.random.default_rng(0).standard_normal(path.f.shape)
    assert set(keys(check(replace(path, f=path.f + noise)))) & {"noise", "thermostat", "other_forces"}


def test_the_grid_of_numbers():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(300)
    assert spacing(values.round(5), [1.0]) == 1e-5
    assert spacing(values.round(3), [1.0]) == 1e-3
    assert spacing(values.round(4) * 0.529177, [1.0, 0.529177]) == pytest.approx(0.529177e-4)
    assert spacing(np.append(values[:100], values[100:].round(5)), [1.0]) == 1e-5
    assert spacing(values, [1.0, 0.529177]) == 0.0
    assert 0.0 < spacing(values.astype(np.float32).astype(float), [1.0]) < 1e-6
    assert spacing(np.zeros(300), [1.0]) == 0.0
