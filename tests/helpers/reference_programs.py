"""Reference methods that behave as programs do: they write files, die, hang, do not converge. All compute what EMT does.

Processes import this module to make them, so it imports little. Numbers come in by environment variables.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.calculators.emt import EMT

#: where the first atom of a geometry is this far from home (Å), the programs below do what they are named after
FAR = 100.0


def is_far(atoms):
    return abs(atoms.positions[0, 0]) > FAR


class FileProgram(Calculator):
    """Writes an input into its directory, runs, and reads the output; energy and forces are of what the input then says."""

    implemented_properties = ("energy", "forces")

    def folder(self):
        return Path(self.directory)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        folder, pause = self.folder(), float(os.environ.get("PROGRAM_SECONDS", "0.02"))
        structure = [atoms.numbers.tolist(), atoms.positions.tolist(), atoms.cell.tolist(), atoms.pbc.tolist()]
        (folder / "program.in").write_text(json.dumps(structure))
        time.sleep(pause)
        numbers, positions, cell, pbc = json.loads((folder / "program.in").read_text())
        there = Atoms(numbers, positions, cell=cell, pbc=pbc, calculator=EMT())
        (folder / "program.out").write_text(json.dumps([there.get_potential_energy(), there.get_forces().tolist()]))
        time.sleep(pause)
        energy, forces = json.loads((folder / "program.out").read_text())
        self.results = {"energy": energy, "forces": np.array(forces)}


class WorkingFolderProgram(FileProgram):
    """Ignores its directory: files are in the working folder of the process."""

    def folder(self):
        return Path()


def unsendable():
    """A program whose calculator cannot be pickled, in a folder that all would share."""
    calculator = FileProgram(directory=tempfile.gettempdir())
    calculator.of_the_user = lambda: None
    return calculator


class CountedEMT(EMT):
    """Writes a line to the file COUNT for each calculation, and fails where an atom is far."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        with open(os.environ["COUNT"], "a") as file:
            file.write(f"{os.environ.get('OMP_NUM_THREADS')}\n")
        if is_far(atoms):
            raise CalculationFailed(f"not converged, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}")
        super().calculate(atoms, properties, system_changes)


class DyingEMT(EMT):
    """Takes its process with it where an atom is far, in the way that DEATH says."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if is_far(atoms):
            with open(os.environ["COUNT"], "a") as file:
                file.write("dying\n")
            match os.environ.get("DEATH"):
                case "segmentation fault":
                    ctypes.string_at(0)
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "sys.exit":
                    sys.exit("the program gives up")
                case _:
                    os._exit(3)
        super().calculate(atoms, properties, system_changes)


class HangingProgram(FileProgram):
    """Starts programs that never end, one in a group of its own as with mpirun; their numbers go to the file PIDS."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if is_far(atoms):
            running = [subprocess.Popen(["sleep", "600"], process_group=group) for group in (None, 0)]
            Path(os.environ["PIDS"]).write_text(" ".join(str(one.pid) for one in running))
            running[0].wait()
        super().calculate(atoms, properties, system_changes)


class MisbehavingProgram(FileProgram):
    """By how far an atom is, in units of FAR: 2 kills its process, 3 sleeps for ever, 4 kills the process that has asked it.

    Each time a letter goes to the file COUNT.
    """

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if is_far(atoms):
            how = round(abs(atoms.positions[0, 0]) / FAR)
            with open(os.environ["COUNT"], "a") as file:
                file.write({2: "d", 3: "s", 4: "w"}[how])
            if how != 3:
                os.kill(os.getpid() if how == 2 else os.getppid(), signal.SIGKILL)
            time.sleep(600)
        super().calculate(atoms, properties, system_changes)


class UnconvergedEMT(EMT):
    """Gives energy and forces, but has not converged where an atom is far; says so as UNCONVERGED tells."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        how = os.environ["UNCONVERGED"] if is_far(atoms) else None
        self.converged = how != "attribute"
        if how == "result":
            self.results["converged"] = False
        elif how is not None:
            (Path(self.directory) / "run.out").write_text("x" * ((1 << 20) - 10) + how + "\nand so on" * 1000)


class ChattingEMT(EMT):
    """Prints, reads what is typed, and starts programs that do."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        print("a line of Python", sys.stdin.read())
        subprocess.run("echo a line of a program; cat", shell=True, check=True)
        os.write(1, b"\x00\x01\x02 bytes\n")
        super().calculate(atoms, properties, system_changes)


class ChargedEMT(EMT):
    """Energy depends on charge and spin: by the atoms and by what stands in `info`; adds what it sees to the file SEEN."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        seen = [atoms.get_initial_charges().sum(), atoms.get_initial_magnetic_moments().sum()]
        seen += [atoms.info.get(name) for name in ("charge", "spin")]
        with open(os.environ["SEEN"], "a") as file:
            file.write(json.dumps([None if x is None else round(float(x), 9) for x in seen]) + "\n")


class Configured(EMT):
    """A program with a version and a setting, from the environment."""

    def __init__(self):
        super().__init__()
        self.parameters["charge"] = float(os.environ.get("CHARGE", "0"))
        self.parameters["where"] = os.getcwd()  # the scratch folder is no setting

    def get_version(self):
        return os.environ.get("VERSION")

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        if "VERSION_IN_OUTPUT" in os.environ:
            self.results["version"] = os.environ["VERSION_IN_OUTPUT"]


def with_file():
    """A factory that reads a file by a relative name."""
    return Path("basis.dat").read_text()


class Strong(EMT):
    """Forces that are STRENGTH times too strong."""

    def strength(self):
        return float(os.environ.get("STRENGTH", "1"))

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["forces"] = self.strength() * self.results["forces"]


class OtherMethod(Strong):
    """Forces that are a fifth larger."""

    def strength(self):
        return 1.2


class OtherZero(EMT):
    """Energies with another zero."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        for name in ("energy", "free_energy"):
            self.results[name] += 1.0


class Neighbour(Strong):
    """A neighbouring method: forces that are a twentieth larger."""

    def strength(self):
        return 1.05


class Broken(EMT):
    """A program that is not there."""

    def calculate(self, *args, **kwargs):
        raise FileNotFoundError("no executable 'code'")


def notes_paths():
    """EMT; where modules are searched goes to the file PATHS."""
    with open(os.environ["PATHS"], "a") as file:
        file.write(json.dumps(sys.path) + "\n")
    return EMT()


def cation():
    """GFN1-xTB of a cation, loosely converged."""
    from tblite.ase import TBLite

    return TBLite(method="GFN1-xTB", charge=1, accuracy=1.0, verbosity=0)
