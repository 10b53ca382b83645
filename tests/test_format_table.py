"""The table of formats in docs/formats.md is that of the code."""

from pathlib import Path

from spk_dt.trajectories.readers import READERS, program_output
from spk_dt.trajectories.readers.ways_out import WAYS_OUT

#: modules that read a format of their own -> what its row begins with
OWN_ROWS = {
    "extxyz": "extended XYZ", "ase_formats": "ASE", "vasp_xml": "VASP", "vasp_outcar": "VASP", "cp2k": "CP2K",
    "lammps": "LAMMPS", "ipi": "i-PI", "md17_npz": "MD17", "schnetpack_hdf5": "MD17", "dtegnn_files": "MD17",
    "trajectory_database": "SchNetPack, trajectory database",
}  # fmt: skip


def rows():
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    lines = text.partition("|---|---|---|---|\n")[2].partition("\n\n")[0].split("\n")
    cells = [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]
    assert all(len(row) == 4 and all(row[2:]) == row[1].startswith("read") for row in cells)
    return {row[0]: row[1] for row in cells}


def test_each_format_has_its_row_and_each_row_its_format():
    found = rows()
    right = {one.name: f"read: {one.what}" for one in program_output.FORMATS}
    named = "not read: the message names the file that is"
    lines = "not read: the message has the lines that bring it here"
    right |= {one.name: lines if one.script else named for one in WAYS_OUT} | {"plain XYZ": lines}
    assert right.items() <= found.items()
    others = [name for name in found if name not in right]
    modules = {module.__name__.rpartition(".")[2] for module in READERS} - {"program_output"}
    assert modules == set(OWN_ROWS)
    assert all(any(name.startswith(row) for name in others) for row in OWN_ROWS.values())
    assert all(any(name.startswith(row) for row in OWN_ROWS.values()) for name in others)
    assert all(found[name].startswith("read") for name in others)
