"""Damaged files: a file that is cut off is never taken for a shorter one, and nothing but ValueError is ever raised."""

import ase.io
import numpy as np
import pytest
from helpers.simulation_files import write_dump, write_log, write_outcar, write_vasprun

from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.inputs import Reading
from spk_dt.trajectories.readers import find_reader, lammps
from spk_dt.trajectories.unwrapping import checked_frames

FORMATS = ("extxyz", "traj", "vasprun.xml", "OUTCAR", "dump")
N_FRAMES = 4

#: what begins a frame, where a file may end without anybody being able to tell
BOUNDARY = {"extxyz": b"4\nLattice", "dump": b"ITEM: TIMESTEP"}


@pytest.fixture
def frames(crystal, make_trajectory):
    atoms = crystal.copy()
    atoms.symbols[0] = "Pd"
    return make_trajectory(atoms, N_FRAMES - 1, 0.5, 7)


@pytest.fixture(params=FORMATS)
def whole(request, tmp_path, frames):
    """Path and bytes of a sound file, and options to convert it."""
    path, options = tmp_path / f"run.{request.param}", {}
    if request.param in ("extxyz", "traj"):
        ase.io.write(path, frames)
        options = {"timestep_fs": 0.5}
    elif request.param == "dump":
        write_dump(path, frames)
        log = write_log(tmp_path / "log", [atoms.calc.results["energy"] for atoms in frames], 4)
        options = {"lammps_logs": [log]}
    else:
        {"vasprun.xml": write_vasprun, "OUTCAR": write_outcar}[request.param](path, frames)
    return path, path.read_bytes(), options


def read(path, options):
    """[n_frames, 3, n_atoms, 3] positions, forces and momenta, all that a conversion would write; and the energies."""
    reader = find_reader(path)
    own = {"lammps_log": options["lammps_logs"][0]} if reader is lammps else {}
    frames = [frame for raw in reader.read(path, **own) for frame in checked_frames(raw.frames(), f"'{path}'")]
    momenta = [frame.arrays.get("momenta", np.zeros((len(frame), 3))) for frame in frames]
    rows = [(frame.positions, frame.calc.results["forces"], p) for frame, p in zip(frames, momenta, strict=True)]
    return np.array(rows), np.array([frame.calc.results["energy"] for frame in frames])


def read_or_refused(path, options):
    """What `read` gives, or None twice if it refuses the file."""
    try:
        return read(path, options)
    except ValueError as error:
        named(path, error)
        return None, None


def named(path, error):
    assert path.name in str(error), f"the message does not name the file: {error}"


def boundaries(path, data):
    """Where a cut leaves whole frames: a shorter file, of which nobody can know."""
    mark = BOUNDARY.get(path.suffix[1:])
    if mark is None:
        return {}
    ends, at = {}, data.find(mark)
    while at >= 0:
        ends[at] = len(ends)
        at = data.find(mark, at + 1)
    return ends


def test_a_file_that_is_cut_off(whole):
    path, data, options = whole
    rows, energies = read(path, options)
    assert len(rows) == N_FRAMES
    rng = np.random.default_rng(11)
    line_ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")] or [0]
    cuts = {
        *rng.integers(0, len(data), 150).tolist(),
        *rng.choice(line_ends, 30).tolist(),
        *range(len(data) - 40, len(data)),
    }
    ends = boundaries(path, data)
    refused = 0
    for cut in sorted({*cuts, *ends}):
        path.write_bytes(data[:cut])
        found, found_energies = read_or_refused(path, options)
        if found is None:
            refused += 1
        else:
            n = ends.get(cut, N_FRAMES)
            np.testing.assert_array_equal(found, rows[:n], err_msg=f"cut at {cut} of {len(data)}")
            np.testing.assert_array_equal(found_energies, energies[:n])
    assert refused > 150


def damaged(data, rng):
    """A file with bytes changed, lost or doubled."""
    data = bytearray(data)
    kind = rng.integers(4)
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 60))
    if kind == 0:
        for where in rng.integers(0, len(data), 3):
            data[where] = rng.integers(256)
    elif kind == 1:
        data[at] = int(rng.choice(list(b'0123456789-.eE \n<>{}[]":,=')))
    elif kind == 2:
        del data[at : at + length]
    else:
        data[at:at] = data[at : at + length]
    return bytes(data)


def test_a_file_that_is_damaged(whole):
    path, data, options = whole
    rng = np.random.default_rng(13)
    refused = 0
    for _ in range(250):
        path.write_bytes(damaged(data, rng))
        refused += read_or_refused(path, options)[0] is None
    assert refused > 50


def test_nothing_is_left_of_a_refused_conversion(whole):
    path, data, options = whole
    rng = np.random.default_rng(17)
    before = {file.name for file in path.parent.iterdir()}
    out = path.parent / "out.db"
    for number in range(12):
        path.write_bytes(damaged(data, rng) if number % 2 else data[: rng.integers(len(data))])
        try:
            convert([path], out, Reading(**options))
            out.unlink()
        except ValueError as error:
            named(path, error)
        assert {file.name for file in path.parent.iterdir()} == before
