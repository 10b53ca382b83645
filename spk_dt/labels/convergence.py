"""Did the reference method converge? Some calculators return energy and forces of the last cycle without a word.

ASE 3.29 raises for Elk, Q-Chem and tblite, asks Siesta to stop, and makes the energy of ORCA NaN. Its `Vasp` only keeps
`converged`; with CP2K, Quantum ESPRESSO, DFTB+, ABINIT, CASTEP and Octopus it depends on version and input whether the
program stops with an error. So the files that a program has left are searched for its own sentence.
"""

from pathlib import Path

from spk_dt.labels.nested_calculators import nested_calculators

__all__ = ["NotConvergedError", "refuse_unconverged", "said_by_program"]

#: what programs print when the self-consistent field was not found
_SENTENCES = {
    b"SCF run NOT converged": "CP2K",
    b"convergence NOT achieved": "Quantum ESPRESSO",
    b"SCC is NOT converged": "DFTB+",
    b"Calculation failed to converge": "NWChem",
    b"SCF NOT CONVERGED": "ORCA",
    b"Wavefunction not fully converged": "ORCA",
    b"EDIFF was not reached": "VASP",
    b"was not enough SCF cycles to converge": "ABINIT",
    b"system has not reached the groundstate": "CASTEP",
    b"SCF_NOT_CONV": "Siesta",
    b"SCF *not* converged": "Octopus",
    b"UNABLE TO ACHIEVE SELF-CONSISTENCE": "MOPAC",
    b"THE SCF CALCULATION FAILED": "MOPAC",
}

#: bytes read at once, and what is searched of a file: its end, where a long output has its result
_CHUNK, _SEARCHED = 1 << 20, 1 << 26


class NotConvergedError(RuntimeError):
    """The reference method has not converged, so there is no label."""


def refuse_unconverged(calculator: object, folder: Path) -> None:
    """Raise if a calculator says that it has not converged, or its program does in a file that it has left.

    Args:
        calculator: after its calculation.
        folder: where its program ran.

    Raises:
        NotConvergedError: if so.
    """
    for one in nested_calculators(calculator):
        results = getattr(one, "results", None) or {}
        for value in (getattr(one, "converged", None), results.get("converged")):
            if value is not None and not callable(value) and not value:
                raise NotConvergedError(f"{type(one).__name__} says that it has not converged")
    if said := said_by_program(folder):
        raise NotConvergedError(said)


def said_by_program(folder: Path) -> str | None:
    """Which program says in which file of a folder that it has not converged; None if none does."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and (sentence := _found(file)):
            return f"{_SENTENCES[sentence]} says '{sentence.decode()}' in {file.relative_to(folder)}"
    return None


def _found(file: Path) -> bytes | None:
    """The first of `_SENTENCES` in a text file."""
    longest = max(map(len, _SENTENCES))
    with file.open("rb") as stream:
        if b"\0" in stream.read(4096):  # orbitals, charge densities
            return None
        stream.seek(max(0, file.stat().st_size - _SEARCHED))
        before = b""
        while chunk := stream.read(_CHUNK):
            text = before + chunk
            for sentence in _SENTENCES:
                if sentence in text:
                    return sentence
            before = text[-longest:]
    return None
