"""Files packed with gzip, bzip2 or xz: the frames of the plain file, in little memory, and never a part of them alone."""

import bz2
import gzip
import lzma
import os
import shutil
import tracemalloc

import ase.io
import numpy as np
import pytest
from ase.db import connect
from helpers.simulation_files import write_dump, write_log, write_outcar, write_vasprun

from spk_dt.trajectories import part_file
from spk_dt.trajectories.convert import convert
from spk_dt.trajectories.inputs import Reading
from spk_dt.trajectories.readers import find_reader, lammps
from spk_dt.trajectories.readers.compressed import SUFFIXES, DamagedArchiveError, open_binary, plain_name

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
FORMATS = ("run.extxyz", "run.xyz", "vasprun.xml", "OUTCAR", "run.dump", "run-pos-1.xyz")
N_FRAMES = 6


@pytest.fixture(scope="module")
def frames(crystal, make_trajectory):
    return make_trajectory(crystal, N_FRAMES - 1, 0.5, 7)


def written(folder, name, frames):
    """A plain file, all files of its run, and options to convert it."""
    path, options = folder / name, {}
    if name in ("run.extxyz", "run.xyz"):
        ase.io.write(path, frames, format="extxyz")
        options = {"timestep_fs": 0.5}
    elif name == "run.dump":
        write_dump(path, frames)
        log = folder / "log.lammps"
        write_log(log, [atoms.calc.results["energy"] for atoms in frames], len(frames[0]))
        options = {"lammps_logs": [log]}
    elif name == "run-pos-1.xyz":
        for kind in ("pos", "frc", "vel"):
            text = ""
            for step, atoms in enumerate(frames):
                rows = {
                    "pos": atoms.positions,
                    "frc": atoms.calc.results["forces"] / 51.42,
                    "vel": atoms.get_velocities(),
                }
                energy = atoms.calc.results["energy"] / 27.2
                text += f"{len(atoms)}\n i = {step}, time = {0.5 * step:.3f}, E = {energy:.10f}\n"
                text += "".join(f" Cu {x:20.10f} {y:20.10f} {z:20.10f}\n" for x, y, z in rows[kind])
            (folder / f"run-{kind}-1.xyz").write_text(text)
        cell = " ".join(f"{x:.10f}" for x in frames[0].cell.array.ravel())
        (folder / "run-1.cell").write_text(f"# Step\n0 0.0 {cell} 1.0\n")
        (folder / "run.inp").write_text("&GLOBAL\nPROJECT run\n&END\n")
    else:
        {"vasprun.xml": write_vasprun, "OUTCAR": write_outcar}[name](path, frames)
    return path, sorted(file for file in folder.iterdir() if file.is_file()), options


def packed(path, suffix):
    """The file packed, in place of the plain one."""
    new = path.with_name(path.name + suffix)
    new.write_bytes(PACK[suffix](path.read_bytes()))
    path.unlink()
    return new


def content(database):
    """Per row: positions, momenta, cell, and all that is in the data."""
    rows = list(connect(database).select(sort="id"))
    return [(row.positions, row.momenta, row.cell, *(row.data[key] for key in sorted(row.data))) for row in rows]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", FORMATS)
def test_the_same_as_the_plain_file(tmp_path, frames, name, suffix):
    folder = tmp_path / "data"
    folder.mkdir()
    path, files, options = written(folder, name, frames)
    (plain,) = convert([path], tmp_path / "plain.db", Reading(**options))
    for file in files:
        new = packed(file, suffix)
        path = new if file == path else path
        if file.name == "log.lammps":
            options["lammps_logs"] = [new]
    (found,) = convert([path], tmp_path / "packed.db", Reading(**options))
    assert found.trajectory == plain.trajectory
    assert found.trajectory.length == N_FRAMES
    for one, other in zip(content(tmp_path / "packed.db"), content(tmp_path / "plain.db"), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", FORMATS)
def test_an_archive_that_is_cut_off_is_damaged(tmp_path, frames, name, suffix):
    """Wherever it is cut, also within the checksum at its end, and also with --drop-incomplete."""
    path, _, options = written(tmp_path, name, frames)
    path = packed(path, suffix)
    data = path.read_bytes()
    cuts = [2, 5, 12, *range(40, len(data), max(1, len(data) // 12)), *range(len(data) - 9, len(data))]
    for cut in cuts:
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=rf"{path.name}' is a packed file that is cut off or damaged|not known"):
            convert([path], tmp_path / "out.db", Reading(drop_incomplete=True, **options))
        if cut >= 12:
            with pytest.raises(DamagedArchiveError, match="copy it again"):
                open_binary(path).read()
        assert not [file for file in tmp_path.iterdir() if file.suffix == ".db"]
    changed = bytearray(data)
    changed[len(data) // 2] ^= 0xFF
    path.write_bytes(changed)
    with pytest.raises(ValueError, match="damaged"):
        convert([path], tmp_path / "out.db", Reading(drop_incomplete=True, **options))


def test_an_interrupted_conversion_goes_on_and_a_changed_archive_is_read_anew(tmp_path, frames, monkeypatch):
    monkeypatch.setattr(part_file, "COMMIT_EVERY", 2)
    path, _, options = written(tmp_path, "run.extxyz", frames)
    convert([path], tmp_path / "sound.db", Reading(**options))
    path = packed(path, ".gz")
    out = tmp_path / "out.db"
    written_rows = []
    write = part_file.PartFile.write
    monkeypatch.setattr(
        part_file.PartFile, "write", lambda part, rows: write(part, (written_rows.append(1) or row for row in rows))
    )

    def interrupt(name, done, total):
        if done == 5:
            raise KeyboardInterrupt

    for changes in (False, True):
        with pytest.raises(KeyboardInterrupt):
            convert([path], out, Reading(**options), progress=interrupt)
        assert connect(tmp_path / ".out.part.db").count() == 4
        if changes:
            text = gzip.decompress(path.read_bytes())
            path.write_bytes(gzip.compress(text.replace(b"energy=", b"energy=1", 1)))
            os.utime(path, (0, 0))
        written_rows.clear()
        (found,) = convert([path], out, Reading(**options))
        assert len(written_rows) == (N_FRAMES if changes else N_FRAMES - 4)
        assert found.trajectory.length == N_FRAMES
        if not changes:
            for one, other in zip(content(out), content(tmp_path / "sound.db"), strict=True):
                np.testing.assert_array_equal(one[0], other[0])
        out.unlink()


def test_memory_does_not_grow_with_the_file(tmp_path, frames):
    path, _, _ = written(tmp_path, "run.extxyz", frames)
    text = path.read_bytes()
    peaks = []
    for repeats in (20, 400):
        with gzip.open(tmp_path / "long.extxyz.gz", "wb") as file:
            for _ in range(repeats):
                file.write(text)
        tracemalloc.start()
        (raw,) = find_reader(tmp_path / "long.extxyz.gz").read(tmp_path / "long.extxyz.gz")
        assert sum(1 for _ in raw.frames()) == repeats * N_FRAMES
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.2 * 380 * len(text)  # of what the longer one has more


def test_what_is_packed_is_known_by_its_bytes(tmp_path, frames):
    """A browser unpacks what it loads and leaves the name; another program packs and changes it."""
    path, _, options = written(tmp_path, "run.extxyz", frames)
    shutil.copy(path, tmp_path / "named.extxyz.gz")
    (found,) = convert([tmp_path / "named.extxyz.gz"], tmp_path / "a.db", Reading(**options))
    assert (found.trajectory.name, found.trajectory.length) == ("named", N_FRAMES)
    (tmp_path / "plain.extxyz").write_bytes(gzip.compress(path.read_bytes()))
    (found,) = convert([tmp_path / "plain.extxyz"], tmp_path / "b.db", Reading(**options))
    assert found.trajectory.length == N_FRAMES
    assert plain_name(tmp_path / "OUTCAR.bz2").name == "OUTCAR"
    assert plain_name(tmp_path / "vasprun.xml").name == "vasprun.xml"


def test_a_plain_file_counts_where_both_are_there(tmp_path, frames):
    path, _, _ = written(tmp_path, "run-pos-1.xyz", frames)
    for kind in ("pos", "frc"):
        (tmp_path / f"run-{kind}-1.xyz.gz").write_bytes(b"\x1f\x8b not sound")
    reader = find_reader(tmp_path)
    (raw,) = reader.read(tmp_path)
    assert path in raw.files
    assert len(list(raw.frames())) == N_FRAMES


def test_the_log_beside_a_packed_dump_is_named(tmp_path, frames):
    path, _, _ = written(tmp_path, "run.dump", frames)
    log = packed(tmp_path / "log.lammps", ".gz")
    with pytest.raises(ValueError, match=rf"--lammps-log .*{log.name}"):
        lammps.read(packed(path, ".xz"))
