"""Files of VASP runs with its machine-learned force field, made from those of ordinary runs."""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from helpers.simulation_files import write_outcar, write_vasprun


def of_the_force_field(frames: Sequence[Atoms]) -> list[Atoms]:
    """The same frames with other energies and forces, as a force field that is being learned has them."""
    found = []
    for atoms in frames:
        copy = atoms.copy()
        results = atoms.calc.results
        copy.calc = SinglePointCalculator(copy, energy=results["energy"] + 1.0, forces=0.5 * results["forces"])
        found.append(copy)
    return found


def _outcar_blocks(path: Path, frames: Sequence[Atoms], finished: bool) -> tuple[str, list[str], str]:
    """Header, frames and end of an OUTCAR."""
    text = write_outcar(path, frames, finished=finished).read_text()
    header, *blocks = re.split(r"(?=^----- Iteration)", text, flags=re.MULTILINE)
    blocks[-1], mark, end = blocks[-1].partition(" General timing")
    return header, blocks, mark + end


def write_learned_outcar(
    path: Path, frames: Sequence[Atoms], ab_initio: Collection[int], *, energy: str = "ML TOTEN", finished: bool = True
) -> Path:
    """An OUTCAR: each step has a block of the force field; the steps `ab_initio`, counted from 1, have another one.

    Args:
        path: file to write.
        frames: frames with ab initio energies and forces.
        ab_initio: steps.
        energy: how the energy of the force field is named.
        finished: whether the run came to its end.
    """
    header, sound, end = _outcar_blocks(path, frames, finished)
    _, learned, _ = _outcar_blocks(path, of_the_force_field(frames), finished)
    first, rest = header.split("\n", 1)
    text = [f"{first}\n   ML_LMLFF = .TRUE.\n{rest}"]
    for step, (reference, block) in enumerate(zip(sound, learned, strict=True), start=1):
        block = block.split("\n", 2)[2]  # there is no electronic iteration
        block = "  ML FORCE on cell =-STRESS in cart. coord. units (eV/cell)\n" + block
        block = block.replace("TOTAL-FORCE (eV/Angst)", "TOTAL-FORCE (eV/Angst) (ML)")
        block = block.replace("  FREE ENERGIE", "  ML FREE ENERGIE").replace("  TOTEN", f"{energy}")
        text.append(block)
        if step in ab_initio:
            text.append(reference)
    path.write_text("".join(text) + end)
    return path


def write_learned_vasprun(path: Path, frames: Sequence[Atoms], ab_initio: Collection[int]) -> Path:
    """A vasprun.xml: the steps `ab_initio`, counted from 1, are calculations, those of the force field stand beside them."""
    calculation = re.compile(r"<calculation>.*?</calculation>\n", re.DOTALL)
    sound = write_vasprun(path, frames).read_text()
    learned = iter(calculation.findall(write_vasprun(path, of_the_force_field(frames)).read_text()))
    steps = iter(range(1, len(frames) + 1))

    def one(match: re.Match[str]) -> str:
        own = next(learned)
        if next(steps) in ab_initio:
            return match[0]
        return (
            re.sub(r"<scstep>.*?</scstep>\n|</?calculation>\n", "", own, flags=re.DOTALL)
            + '<time name="t">1 1</time>\n'
        )

    text = calculation.sub(one, sound)
    path.write_text(text.replace(" <incar>\n", ' <incar>\n  <i type="logical" name="ML_LMLFF"> T  </i>\n'))
    return path


#: writers by name of the file
WRITERS: dict[str, Callable[..., Path]] = {"OUTCAR": write_learned_outcar, "vasprun.xml": write_learned_vasprun}
