"""Files of each format that we read, damaged by chance; what comes of reading them, in a process with limits.

    python -m helpers.damaged_files FORMAT FOLDER SEED FIRST COUNT

makes sound files in the folder and prints, for each damaged one, a line of JSON: its number, ``result``, ``refused`` or what
else came of it, and the message. The process may use a gigabyte more than what it has when it begins, and `SECONDS` a file.
"""

import json
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SECONDS = 20
MEMORY = 2**30


class Format(NamedTuple):
    """A format: writes a sound file in a folder and returns its path; reads it, all that a program would."""

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]


def frames(n_frames: int = 6) -> list[Any]:
    from helpers.pair_potential import pair_trajectory, tetrahedron

    return pair_trajectory(tetrahedron(), n_frames - 1, 0.5, kelvin=300.0)


def write_database(folder: Path) -> Path:
    from spk_dt.trajectories.database import TrajectoryWriter

    with TrajectoryWriter(folder / "data.db", splits={"train": ["a"], "val": ["b"]}) as writer:
        writer.add("a", frames(), 0.5)
        writer.add("b", frames(), 0.5)
    return folder / "data.db"


def read_database(file: Path) -> Any:
    from spk_dt.data import TrajectoryDataModule

    shutil.rmtree(file.with_suffix(".frames"), ignore_errors=True)
    module = TrajectoryDataModule(str(file), 2, split_file=None, num_workers=0, num_val_workers=0, num_test_workers=0)
    module.setup()
    return [next(iter(loader)) for loader in (module.train_dataloader(), module.val_dataloader())]


def converted(file: Path, **options: Any) -> Any:
    """Frames as `spkdt convert` reads them."""
    from spk_dt.trajectories.readers import find_reader
    from spk_dt.trajectories.unwrapping import checked_frames

    return [f for raw in find_reader(file).read(file, **options) for f in checked_frames(raw.frames(), f"'{file}'")]


def write_hdf5(folder: Path) -> Path:
    from schnetpack.md import Simulator, System
    from schnetpack.md.simulation_hooks import MoleculeStream, PropertyStream

    from helpers.pair_potential import pair_model
    from helpers.programs import spkmd  # noqa: F401 - what simulations need is imported before the limit is set
    from spk_dt.md import FileLogger, FreezingVerlet, ModelCalculator

    system = System()
    molecules = frames(1)
    system.load_molecules(molecules)
    logger = FileLogger(
        str(folder / "simulation.hdf5"),
        buffer_size=4,
        data_streams=[MoleculeStream(store_velocities=True), PropertyStream(["energy", "forces"])],
        every_n_steps=1,
        precision=64,
    )
    calculator = ModelCalculator(pair_model(folder / "pairs"), "eV", "Angstrom")
    simulator = Simulator(system, FreezingVerlet(0.5), calculator, [logger], progress=False)
    simulator.to(__import__("torch").float64).simulate(12)
    return folder / "simulation.hdf5"


def write_extxyz(folder: Path) -> Path:
    import ase.io

    ase.io.write(folder / "run.extxyz", frames())
    return folder / "run.extxyz"


def write_dump(folder: Path) -> Path:
    from helpers import simulation_files

    own = frames()
    for atoms in own:
        atoms.set_cell([9.0, 9.0, 9.0])
        atoms.pbc = True
    simulation_files.write_log(folder / "log.lammps", [atoms.calc.results["energy"] for atoms in own], 4)
    return simulation_files.write_dump(folder / "run.dump", own) or folder / "run.dump"


def write_vasp(kind: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        from helpers import simulation_files

        own = frames(4)
        for atoms in own:
            atoms.set_cell([9.0, 9.0, 9.0])
            atoms.pbc = True
        file = folder / kind
        {"vasprun.xml": simulation_files.write_vasprun, "OUTCAR": simulation_files.write_outcar}[kind](file, own)
        return file

    return write


def write_npz(folder: Path) -> Path:
    own = frames(8)
    kcal = 23.06054783061903
    np.savez(
        folder / "md17.npz",
        R=np.array([atoms.positions for atoms in own]),
        F=np.array([atoms.calc.results["forces"] for atoms in own]) * kcal,
        E=np.array([[atoms.calc.results["energy"]] for atoms in own]) * kcal,
        z=own[0].numbers.astype(np.uint8),
    )
    return folder / "md17.npz"


def write_split(folder: Path) -> Path:
    np.savez(folder / "split.npz", train_idx=np.arange(6), val_idx=np.arange(6, 12), test_idx=np.arange(0))
    write_database(folder)
    return folder / "split.npz"


def read_split(file: Path) -> Any:
    from spk_dt.data import TrajectoryDataModule

    module = TrajectoryDataModule(str(file.with_name("data.db")), 2, split_file=str(file))
    module.setup()
    return module.train_idx


def model() -> Any:
    from helpers.models import painn, potential

    return potential(painn()).eval()


def write_model(folder: Path) -> Path:
    import torch

    torch.save(model(), folder / "best_model")
    return folder / "best_model"


def read_pickle(file: Path) -> Any:
    from spk_dt.training.pretrained import describe

    return describe(file)


def read_pickle_as_data(file: Path) -> Any:
    """Looked at without loading: what cannot be told is left open."""
    from spk_dt.export.about import about
    from spk_dt.training.pretrained import read_attribute

    return [about(file), *(read_attribute(file, what) for what in ("cutoff", "energy_key"))]


def write_safetensors(folder: Path) -> Path:
    from spk_dt.models import Facts, save_model

    own = model()
    save_model(own, Facts("a", "eV", "Ang", 4.0, sorted(own.model_outputs), ["H", "Pd"]), folder / "a.safetensors")
    return folder / "a.safetensors"


def read_safetensors(file: Path) -> Any:
    from spk_dt.models import load_model

    return load_model(file)


def write_config(folder: Path) -> Path:
    write_model(folder)
    (folder / "config.yaml").write_text(
        "run:\n  work_dir: .\n  path: ${run.work_dir}/runs\nglobals:\n  cutoff: 4.0\ndata:\n  datapath: data.db\n"
        "  distance_unit: Ang\n  property_units:\n    energy: eV\n    forces: eV/Ang\n  transforms:\n"
        "  - _target_: schnetpack.transform.MatScipyNeighborList\n    cutoff: ${globals.cutoff}\n"
        "task:\n  outputs:\n  - _target_: schnetpack.task.ModelOutput\n    name: energy\n    loss_weight: 0.01\n"
    )
    return folder / "config.yaml"


def read_config(file: Path) -> Any:
    from spk_dt.training.run_config import read_run_config, units_of

    return units_of(read_run_config(file.with_name("best_model"), "energy", 4.0))


LABEL_HEADER = {"format": "spk_dt labels, version 1", "reference": "ase.calculators.emt:EMT"}


def write_labels(folder: Path) -> Path:
    from spk_dt.labels.label_file import geometry_hash

    lines = [LABEL_HEADER]
    for number, atoms in enumerate(frames()):
        results = {key: np.asarray(atoms.calc.results[key]).tolist() for key in ("energy", "forces")}
        lines.append({"id": f"{number}", "geometry": geometry_hash(atoms), **results, "error": None})
    (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "labels.jsonl"


def read_labels(file: Path) -> Any:
    from spk_dt.labels.label_file import open_labels

    return open_labels(file, LABEL_HEADER)


def write_certificate(folder: Path) -> Path:
    content = json.loads(
        (Path(__file__).parents[1] / "fixtures" / "0.1.0" / "certificate" / "certificate.json").read_text()
    )
    (folder / "certificate.json").write_text(json.dumps(content, indent=1))
    return folder / "certificate.json"


def read_certificate(file: Path) -> Any:
    from spk_dt.evaluation.certificates import read_certificate as read

    certificate = read(file.parent)
    return certificate.statements, certificate.method, certificate.table, certificate.wrong_states


def write_made_with(folder: Path) -> Path:
    write_model(folder)
    found = {"cutoff": 4.0, "time step of the data in fs": [0.5], "elements": ["H", "Pd"], "loss": ["forces"]}
    (folder / "made_with.json").write_text(json.dumps(found, indent=1))
    return folder / "made_with.json"


def read_made_with(file: Path) -> Any:
    from spk_dt.training.same_run import made_with_of

    return made_with_of(file.with_name("best_model"))


def write_checkpoint(folder: Path) -> Path:
    """Of a training: weights, optimiser and states of callbacks."""
    import torch

    own = model()
    optimizer = torch.optim.Adam(own.parameters())
    state = {"state_dict": own.state_dict(), "optimizer_states": [optimizer.state_dict()], "epoch": 3}
    torch.save(state | {"callbacks": {"ModelCheckpoint": {"made_with": {"cutoff": 4.0}}}}, folder / "last.ckpt")
    return folder / "last.ckpt"


def read_checkpoint(file: Path) -> Any:
    """As a training that goes on does."""
    from spk_dt.training.checkpoint import WholeFileIO

    return WholeFileIO().load_checkpoint(file)


def write_restart(folder: Path) -> Path:
    import torch

    torch.save(
        {"step": 5, "system": {"positions": torch.zeros(4, 3)}, "random": torch.random.get_rng_state()}, folder / "md"
    )
    return folder / "md"


def read_restart(file: Path) -> Any:
    from spk_dt.md.restart import read_state

    return read_state(file)


def write_archive(folder: Path) -> Path:
    import zipfile

    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"data/traj_{number}.traj", os.urandom(200) + bytes(2000))
    return folder / "data.zip"


def read_archive(file: Path) -> Any:
    import re

    from spk_dt.data.download import unpack

    out = file.parent / "unpacked"
    shutil.rmtree(out, ignore_errors=True)
    return unpack(file, out, re.compile(r"traj_\d+\.traj"), "Download it again.")


FORMATS = {
    "database": Format(write_database, read_database),
    "hdf5": Format(write_hdf5, converted),
    "extxyz": Format(write_extxyz, converted),
    "dump": Format(write_dump, lambda file: converted(file, lammps_log=file.with_name("log.lammps"))),
    "vasprun": Format(write_vasp("vasprun.xml"), converted),
    "outcar": Format(write_vasp("OUTCAR"), converted),
    "npz": Format(write_npz, converted),
    "split": Format(write_split, read_split),
    "pickle": Format(write_model, read_pickle),
    "pickle_as_data": Format(write_model, read_pickle_as_data),
    "checkpoint": Format(write_checkpoint, read_checkpoint),
    "restart": Format(write_restart, read_restart),
    "safetensors": Format(write_safetensors, read_safetensors),
    "config": Format(write_config, read_config),
    "made_with": Format(write_made_with, read_made_with),
    "labels": Format(write_labels, read_labels),
    "certificate": Format(write_certificate, read_certificate),
    "archive": Format(write_archive, read_archive),
}

#: what stands for numbers and words in files of text
_VALUES = (
    b"nan",
    b"-1",
    b"0",
    b"1e999",
    b"99999999999999",
    b"null",
    b"[]",
    b"{}",
    b"true",
    b'"x"',
    b"",
    b"\xff",
    b"- ",
)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with something changed, lost, doubled or cut off."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if not out:
            break
        at, length = int(rng.integers(len(out))), int(rng.integers(1, 200))
        kind = int(rng.integers(8))
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.choice(list(b'0123456789-.eE \n<>{}[]":,=&*!\0\xff')))
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length]
        elif kind == 4:
            out[at : at + length] = bytes(min(length, len(out) - at))
        elif kind == 5:
            del out[at:]
        elif kind == 6:
            out[at : at + 4] = b"\xff\xff\xff\x7f"
        else:
            words = [i for i in range(at, min(at + 300, len(out))) if out[i : i + 1].isdigit()]
            if words:
                end = words[0]
                while end < len(out) and chr(out[end]) in "0123456789.eE+-":
                    end += 1
                out[words[0] : end] = _VALUES[int(rng.integers(len(_VALUES)))]
    return bytes(out)


class TooLongError(BaseException):
    """Reading took more than `SECONDS`."""


def _too_long(*_: Any) -> None:
    raise TooLongError


def outcome(read: Callable[[Path], Any], file: Path) -> tuple[str, str]:
    """What comes of reading a file."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor: others may use it, too
    try:
        read(file)
    except TooLongError:
        return "hang", "".join(traceback.format_exc()[-1500:])
    except (ValueError, ImportError) as error:
        named = file.name in str(error)
        return "refused" if named else "not named", str(error) if named else traceback.format_exc()[-2500:]
    except BaseException:
        return "traceback", traceback.format_exc()[-2500:]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "result", ""


def main(name: str, folder: Path, seed: int, first: int, count: int) -> None:
    """Damage and read."""
    own = FORMATS[name]
    signal.signal(signal.SIGPROF, _too_long)
    file = own.write(folder)
    data = file.read_bytes()
    kind, message = outcome(own.read, file)
    if kind != "result":
        raise SystemExit(f"the sound file is not read: {message}")
    if file.read_bytes() != data:
        raise SystemExit("reading has changed the sound file")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for number in range(first, first + count):
        file.write_bytes(damaged(data, np.random.default_rng([seed, number])))
        print(json.dumps([number, "begun", ""]), flush=True)
        print(json.dumps([number, *outcome(own.read, file)]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6]))
    os._exit(0)  # libraries may not be able to clean up within the limit of memory
