"""Total charge and spin multiplicity: from files under the names users give them, or stated; never another silently."""

import ase.io
import pytest
from ase.db import connect
from schnetpack.data import ASEAtomsData
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.database import TrajectoryWriter
from spk_dt.trajectories.inputs import Reading


@pytest.fixture
def frames(cluster, make_trajectory):
    return make_trajectory(cluster, 4, 0.5, 0)


def inputs_of(database):
    dataset = ASEAtomsData(str(database))
    names = {"total_charge", "spin_multiplicity"} & set(dataset.available_properties)
    return [{name: dataset[i][name].tolist() for name in names} for i in range(len(dataset))]


@pytest.mark.parametrize("charge", ["charge", "Charge", "total_charge", "Total_Charge"])
@pytest.mark.parametrize("spin", ["spin", "Spin", "multiplicity", "Multiplicity", "spin_multiplicity"])
def test_names_in_extended_xyz(tmp_path, frames, charge, spin):
    for atoms in frames:
        atoms.info = {charge: -1, spin: 2}
    ase.io.write(tmp_path / "run.extxyz", frames)
    convert([tmp_path / "run.extxyz"], tmp_path / "a.db", Reading(timestep_fs=0.5))
    assert inputs_of(tmp_path / "a.db") == [{"total_charge": [-1.0], "spin_multiplicity": [2.0]}] * len(frames)


def test_stated_on_the_command_line(tmp_path, frames):
    ase.io.write(tmp_path / "run.extxyz", frames)
    command = ["convert", str(tmp_path / "run.extxyz"), str(tmp_path / "a.db"), "--timestep-fs", "0.5"]
    result = CliRunner().invoke(app, [*command, "--charge", "-1", "--spin", "2"])
    assert result.exit_code == 0, result.output
    assert inputs_of(tmp_path / "a.db") == [{"total_charge": [-1.0], "spin_multiplicity": [2.0]}] * len(frames)
    reading = Reading(charge=-1, masses={"Cu": 64.0} if "Cu" in frames[0].symbols else None)
    convert([tmp_path / "a.db"], tmp_path / "same.db", reading)  # through the database, and with other options
    assert inputs_of(tmp_path / "same.db") == inputs_of(tmp_path / "a.db")
    with pytest.raises(ValueError, match=r"frame 0: it has total_charge=-1, but 1 is stated"):
        convert([tmp_path / "a.db"], tmp_path / "other.db", Reading(charge=1))
    assert not (tmp_path / "other.db").exists()


def test_what_a_database_keeps_beside_its_trajectories_is_said_to_stay_behind(tmp_path, frames):
    with TrajectoryWriter(tmp_path / "a.db", {"train": ["run"], "val": [], "test": []}) as writer:
        writer.add("run", frames, 0.5)
    database = connect(tmp_path / "a.db")
    database.metadata = database.metadata | {"atomrefs": {"energy": [0.0, -13.6]}}
    (found,) = convert([tmp_path / "a.db"], tmp_path / "b.db")
    assert [note.split(" of ")[0] for note in found.notes] == [
        "its partitions (splits)",
        "its single-atom values (atomrefs)",
    ]
    (again,) = convert([tmp_path / "b.db"], tmp_path / "c.db")
    assert again.notes == ()


@pytest.mark.parametrize("wrong", [{"charge": 0.5}, {"spin": 0}])
def test_values_that_cannot_be_are_refused(tmp_path, frames, wrong):
    ase.io.write(tmp_path / "run.extxyz", frames)
    with pytest.raises(ValueError, match="whole numbers"):
        convert([tmp_path / "run.extxyz"], tmp_path / "a.db", Reading(timestep_fs=0.5, **wrong))
