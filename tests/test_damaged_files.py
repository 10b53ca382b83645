"""Whatever is changed in a file that we read: a right result, or an error that names the file; in bounded memory and time.

The files, how they are damaged and how they are read are in `helpers.damaged_files`.
"""

import json
import signal
import sqlite3
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import damaged_files
from helpers.damaged_files import FORMATS, Format, damaged, outcome
from typer.testing import CliRunner

from spk_dt.cli import app
from spk_dt.data.download import unpack
from spk_dt.data.split_file import read_split
from spk_dt.folders.hdf5_probe import refuse_endless
from spk_dt.trajectories.checked_database import check_database
from spk_dt.trajectories.readers import schnetpack_hdf5

pytestmark = pytest.mark.filterwarnings("ignore")

#: mutations of each format, of the fast and of the slow test
FEW, MANY = 3, 1000


@pytest.fixture
def _limit():
    before = signal.signal(signal.SIGPROF, damaged_files._too_long)
    yield
    signal.signal(signal.SIGPROF, before)


@pytest.mark.usefixtures("_limit")
@pytest.mark.parametrize("name", FORMATS)
def test_some_damaged_files(name, tmp_path):
    own: Format = FORMATS[name]
    file = own.write(tmp_path)
    data = file.read_bytes()
    assert outcome(own.read, file) == ("result", "")
    for number in range(FEW):
        file.write_bytes(damaged(data, np.random.default_rng([5, number])))
        kind, message = outcome(own.read, file)
        assert kind in ("result", "refused"), f"mutation {number}: {message}"
    file.write_bytes(data[: len(data) // 3])  # a control: there is something to refuse
    if name not in ("labels", "extxyz"):
        assert outcome(own.read, file)[0] == "refused"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files(name, tmp_path):
    """In a process of its own, with a limit of memory; one that ends by itself is a crash of a library."""
    command = [sys.executable, "-m", "helpers.damaged_files", name, str(tmp_path), "5", "0", str(MANY)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=3600, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    wrong = [row for row in rows if row[1] not in ("begun", "result", "refused")]
    assert wrong == []
    assert done.returncode == 0, f"after {rows[-1:]}: {done.stderr[-2000:]}"
    assert sum(row[1] != "begun" for row in rows) == MANY


def test_what_is_not_named_or_no_clear_error_would_be_seen(tmp_path):
    """A control of the harness."""
    file = tmp_path / "file"
    file.touch()

    def fail(error):
        def read(path):
            raise error

        return read

    assert outcome(fail(ValueError(f"'{file}' is wrong")), file)[0] == "refused"
    assert outcome(fail(ValueError("something is wrong")), file)[0] == "not named"
    assert outcome(fail(KeyError("file")), file)[0] == "traceback"
    assert outcome(fail(MemoryError()), file)[0] == "traceback"


# --------------------------------------------------------------------------------------------- made up to do harm


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW more AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
        "CREATE TRIGGER more AFTER INSERT ON systems BEGIN DELETE FROM systems; END",
        "CREATE TABLE more (i INTEGER)",
        "UPDATE information SET value = printf('%.*c', 30000000, 'x') WHERE name = 'metadata'",
    ],
)
def test_a_database_with_more_than_tables_of_ase(statement, tmp_path):
    file = damaged_files.write_database(tmp_path)
    check_database(file)
    with sqlite3.connect(file) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(
        ValueError, match=r"data\.db' is damaged.*(no database of ASE has|metadata have 30000000 bytes)"
    ):
        check_database(file)
    assert outcome(damaged_files.read_database, file)[0] == "refused"


@pytest.mark.parametrize("value", ['{"trajectories" []}', b'{"a": "\xff"}'], ids=["no JSON", "no text"])
def test_metadata_that_make_no_sense(value, tmp_path):
    """Wherever they are read first."""
    file = damaged_files.write_database(tmp_path)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE information SET value = CAST(? AS TEXT) WHERE name = 'metadata'", (value,))
    with pytest.raises(ValueError, match=f"'{file}' is damaged"):
        damaged_files.read_database(file)
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 2
    assert f"'{file}' is damaged" in done.output.replace("\n", "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("- _target_: schnetpack.task.ModelOutput", "- x"), ("property_units:", "property_units: [e]\n  other:")],
)
def test_a_config_of_a_run_with_other_kinds_of_values(right, wrong, tmp_path):
    """Words where there should be mappings."""
    file = damaged_files.write_config(tmp_path)
    text = file.read_text()
    assert right in text
    file.write_text(text.replace(right, wrong).replace("\n    name: energy\n    loss_weight: 0.01", ""))
    with pytest.raises(ValueError, match=f"'{file}' is damaged"):
        damaged_files.read_config(file)


@pytest.mark.parametrize("name", [b"force_key", b"_parameters", b"output_modules", b"input_modules"])
def test_a_model_that_lacks_an_attribute(name, tmp_path):
    """Whichever it is."""
    file = damaged_files.write_model(tmp_path)
    file.write_bytes(file.read_bytes().replace(name, name[:-1] + b"q"))
    assert outcome(damaged_files.read_pickle, file)[0] == "refused"


def test_a_checkpoint_of_a_package_that_is_not_here(tmp_path):
    """Which package, and which file."""
    file = damaged_files.write_checkpoint(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"collections", b"colleCtions"))
    with pytest.raises(ImportError, match=rf"'{file}' .*'colleCtions'.*run\.ckpt_path"):
        damaged_files.read_checkpoint(file)


def test_a_table_that_is_computed(tmp_path):
    """The rows of a view would never end."""
    file = damaged_files.write_database(tmp_path)
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE systems RENAME TO keys2")
        connection.execute(
            "CREATE VIEW systems AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT i AS id, keys2.* FROM n, keys2"
        )
    connection.close()
    with pytest.raises(ValueError, match="which no database of ASE has"):
        check_database(file)


def hdf5_with(path, change):
    """A simulation file in which a data set has been exchanged."""
    with h5py.File(path, "r+") as file:
        attributes = dict(file["molecules"].attrs)
        shape, data = file["molecules"].shape, file["molecules"][:]
        del file["molecules"]
        change(file, shape, data)
        for key, value in attributes.items():
            file["molecules"].attrs[key] = value
        file["molecules"].attrs["entries"] = file["molecules"].shape[0]
        file["properties"].attrs["entries"] = file["molecules"].shape[0]


def test_hdf5_whose_data_are_elsewhere_or_nowhere(tmp_path):
    def linked(file, shape, data):
        with h5py.File(tmp_path / "other.h5", "w") as other:
            other["molecules"] = data
        file["molecules"] = h5py.ExternalLink("other.h5", "molecules")

    def outside(file, shape, data):
        (tmp_path / "raw").write_bytes(data.tobytes())
        file.create_dataset("molecules", shape, data.dtype, external=[("raw", 0, data.nbytes)])

    def never_written(file, shape, data):
        del file["properties"]
        for name in ("molecules", "properties"):
            file.create_dataset(name, (10**9, *shape[1:]), data.dtype, chunks=(100, *shape[1:]))

    for change, message in (
        (linked, "in another file"),
        (outside, "in another file"),
        (never_written, "never written"),
    ):
        folder = tmp_path / change.__name__
        folder.mkdir()
        file = damaged_files.write_hdf5(folder)
        (tmp_path / "other.h5").unlink(missing_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            hdf5_with(file, change)
            with h5py.File(file) as opened:
                entries = opened["molecules"].shape[0]
                assert message in schnetpack_hdf5._not_within(opened, "molecules", entries)


def test_hdf5_that_would_be_read_for_ever(tmp_path):
    """HDF5 takes an object of size zero in a heap for text of variable length as the next one, again and again."""
    file = damaged_files.write_hdf5(tmp_path)
    refuse_endless(file)
    data = bytearray(file.read_bytes())
    first = data.index(b"GCOL") + 16  # after the header of the heap
    second = first + 16 + -(-int.from_bytes(data[first + 8 : first + 16], "little") // 8) * 8
    assert data[second] == 2  # its number
    data[second : second + 16] = bytes(16)
    file.write_bytes(data)
    with pytest.raises(ValueError, match=rf"'{file}' is damaged: the HDF5 library neither reads it"):
        schnetpack_hdf5.read(file)


def test_archives_with_links_or_far_too_much(tmp_path):
    file = tmp_path / "data.zip"
    link = zipfile.ZipInfo("data/traj_0.traj")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"data\.zip' has a link 'data/traj_0\.traj'"):
        damaged_files.read_archive(file)
    import re

    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../traj_0.traj", "x")
    with pytest.raises(ValueError, match="not below the archive"):
        unpack(file, tmp_path / "out", re.compile(r"traj_\d+\.traj"), "")
    with zipfile.ZipFile(tmp_path / "split.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_idx.npy", bytes(10**8))
    with pytest.raises(ValueError, match=r"split\.npz' is damaged.*would unpack to 100000000 bytes"):
        read_split(tmp_path / "split.npz")
    np.savez(tmp_path / "split.npz", train_idx=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"split\.npz"):
        read_split(tmp_path / "split.npz")
