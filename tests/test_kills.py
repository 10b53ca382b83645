"""Commands that are killed at any moment, and started again as they were: the result is that of one that was not.

Trainings are in test_resume.py, `spkmd` in test_md_restart.py.
"""

import json
import random
import signal
from contextlib import contextmanager

import ase.io
import numpy as np
import pytest
from helpers.database_content import assert_same
from helpers.generation import WithoutTorch, crystal, name
from helpers.kills import Moments, in_fork
from helpers.pair_potential import pair_trajectory, tetrahedron

from spk_dt.certificate.certify import Computing, certify
from spk_dt.certificate.conditions import Conditions
from spk_dt.data import TrajectoryWriter
from spk_dt.labels.generate_from import Protocol, generate_from
from spk_dt.labels.relabel import relabel
from spk_dt.trajectories import part_file
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.inputs import Reading

REFERENCE = "helpers.pair_reference:Reference"


def frames(seed):
    return pair_trajectory(tetrahedron(), 12, 1.0, seed, kelvin=300.0)


@contextmanager
def refused_if_whole(file):
    """A database that is complete is not made again: it exists."""
    whole = file.exists()
    try:
        yield
    except FileExistsError:
        assert whole
    else:
        assert not whole


class Converting:
    def prepare(self, given):
        for one in range(3):
            ase.io.write(given / f"{one}.traj", frames(one))

    def run(self, given, folder, mark):
        part_file.COMMIT_EVERY = 5  # in the fork
        with refused_if_whole(folder / "out.db"):
            convert(
                [given / f"{one}.traj" for one in range(3)], folder / "out.db", Reading(timestep_fs=1.0), progress=mark
            )

    def assert_same(self, found, expected):
        assert_same(found / "out.db", expected / "out.db")
        assert not list(found.glob(".*.db"))


class Generating:
    def prepare(self, given):
        pass

    def run(self, given, folder, mark):
        protocol = Protocol(300.0, 5.0, 2, 0.05, 30.0)
        with refused_if_whole(folder / "out.db"):
            generate_from([crystal("Ne8")], folder / "out.db", 30, protocol, name(WithoutTorch), 2, progress=mark)

    def assert_same(self, found, expected):
        assert_same(found / "out.db", expected / "out.db")
        assert not list(found.glob(".*.db"))


class Relabelling:
    def prepare(self, given):
        pass

    def run(self, given, folder, mark):
        found = relabel(frames(0) + frames(1), REFERENCE, folder / "labels.jsonl", progress=mark)
        np.savez(folder / "found.npz", energy=found.energy, forces=np.array(found.forces))

    def assert_same(self, found, expected):
        one, other = (sorted((folder / "labels.jsonl").read_text().splitlines()) for folder in (found, expected))
        assert one == other
        arrays, others = (np.load(folder / "found.npz") for folder in (found, expected))
        for key in ("energy", "forces"):
            np.testing.assert_array_equal(arrays[key], others[key])


class Certifying:
    def prepare(self, given):
        with TrajectoryWriter(given / "data.db") as writer:
            for seed in range(3):
                writer.add(f"{seed}", frames(seed), 1.0)

    def run(self, given, folder, mark):
        found = certify(
            {"m": "ase:helpers.broken_potentials:Sticky"}, given / "data.db", folder / "out", REFERENCE, 3,
            Conditions(0.4, 8, 300.0), computing=Computing(compile=False, precision=64, batch_size=2), progress=mark,
        )  # fmt: skip
        (folder / "found.json").write_text(json.dumps(found, sort_keys=True))

    def assert_same(self, found, expected):
        assert (found / "found.json").read_text() == (expected / "found.json").read_text()
        assert json.loads((found / "found.json").read_text())["m"]["failures"] > 0


def run(program, given, folder, kill_at):
    """In a fork: the moments at which the program could have been killed."""
    folder.mkdir(exist_ok=True)
    moments = Moments(folder, kill_at)
    program.run(given, folder, lambda *state: moments.mark(f"done {state}"))
    return moments.told


def kill_and_start_again(tmp_path, program, choose):
    """Compare runs that are killed at chosen moments with one that is not; the moments."""
    given = tmp_path / "given"
    given.mkdir()
    program.prepare(given)
    code, told = in_fork(run, program, given, tmp_path / "whole", None)
    assert code == 0
    chosen = choose(range(len(told)))
    for at in chosen:
        folder = tmp_path / f"killed_{at}"
        assert in_fork(run, program, given, folder, at)[0] == -signal.SIGKILL
        assert in_fork(run, program, given, folder, None)[0] == 0, told[at]
        program.assert_same(folder, tmp_path / "whole")
    return [told[at] for at in chosen]


def test_killed_once(tmp_path):
    kill_and_start_again(tmp_path, Converting(), lambda moments: [2 * len(moments) // 3])


@pytest.mark.slow
@pytest.mark.parametrize("program", [Converting, Generating, Relabelling, Certifying])
def test_killed_at_20_random_moments(tmp_path, program):
    told = kill_and_start_again(tmp_path, program(), lambda moments: random.Random(2).sample(moments, 20))
    assert len(told) == 20
