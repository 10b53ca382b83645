r"""How forces and energies of a reference method differ from those of frames, and which likely reason the difference shows.

Noise is what the same method leaves: convergence of the self-consistent field, and digits that a file has dropped. Measured
as root mean square of a force component, in parts of that of the forces:

    ====================================================================  ================
    GFN1-xTB, ``accuracy`` 1 and 10 in place of 0.1; 4, 3 decimals of Å   0.0002; 0.004, 0.01
    GFN1- and GFN2-xTB: benzene, water, ethanol, H2 on Pd6, H3O+          0.05, 0.10, 0.11, 0.25, 0.35
    electrons at 300 K in place of 1,000 K, H2 on Pd6                     0.05
    H3O+ without its charge                                               0.8 to 1.0
    D3 of PBE: small molecules; H2 on Pd6, of it C, H, Pd                 0.003; 0.024, of it 0.015, 0.04, 0.11
    ====================================================================  ================

`NOISE` lies between, for each frame, and for each element, since a difference at few atoms disappears in the mean over all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from spk_dt import properties
from spk_dt.labels.unit_check import ENERGY_UNITS
from spk_dt.units import conversion

__all__ = ["NOISE", "NOISE_EV_PER_ANG", "SAME_ENERGY", "Difference", "EnergyOffset", "difference"]

#: the same method is off by less than this part of the forces, or by less than the next number
NOISE = 0.03

#: eV/Å, of a force component, that rounded positions or a loose convergence leave
NOISE_EV_PER_ANG = 0.01

#: eV per atom, above which energies have another zero
SAME_ENERGY = 0.01

#: of the forces of an element, which may be zero by symmetry, no more is asked than this part of all forces
_SMALL = 0.01

#: a net force above this part of the forces is no rounding that a program has taken away
_DRIFT = 0.1

#: a factor is a unit if it is that near to it
_SAME_FACTOR = 0.01

#: a neighbouring method, or other settings of one, is off by less than this part of the forces
_NEIGHBOUR = 0.2

_LENGTHS = {"Å": "Ang", "Bohr": "Bohr", "nm": "nm"}


@dataclass(frozen=True)
class EnergyOffset:
    """What is to be added to energies of the reference method to have those of the data.

    Args:
        by_element: eV per atom of each element, by symbol; of all choices that fit as well the one nearest to a common
            constant per atom.
        determined: whether the compositions of the frames tell the elements apart.
        difference: largest difference of the energies without the offset, eV per atom.
        left: largest difference with it, eV per atom.
    """

    by_element: Mapping[str, float]
    determined: bool
    difference: float
    left: float

    @property
    def same_zero(self) -> bool:
        """Whether there is nothing to add."""
        return self.difference <= SAME_ENERGY

    @property
    def explains(self) -> bool:
        """Whether the energies are those of the data with the offset."""
        return self.left <= SAME_ENERGY

    def of(self, numbers: np.ndarray) -> float:
        """The offset of a system, eV, from its atomic numbers [n_atoms].

        Raises:
            ValueError: if it has an element that the frames do not have.
        """
        symbols = [chemical_symbols[z] for z in numbers]
        unknown = sorted(set(symbols) - set(self.by_element))
        if unknown:
            raise ValueError(f"the offset of the energy is known of {', '.join(self.by_element)}, not of {unknown}.")
        return float(sum(self.by_element[symbol] for symbol in symbols))


@dataclass(frozen=True)
class Difference:
    """What sets a reference method apart from the data.

    Args:
        n_frames: number of frames that were compared.
        error: root mean square of the difference of a force component, eV/Å.
        size: root mean square of a force component of the data, eV/Å.
        by_element: both for each element, by symbol.
        same_forces: whether the forces are those of the data, but for noise and a small net force.
        reason: what the difference of the forces looks like; empty if there is none.
        n_fixed: atoms (of all frames) whose zero forces in the data were left out, since the reference method has others.
        energy: offset of the energy.
    """

    n_frames: int
    error: float
    size: float
    by_element: Mapping[str, tuple[float, float]]
    same_forces: bool
    reason: str
    n_fixed: int
    energy: EnergyOffset

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        offset = None if self.energy.same_zero else dict(self.energy.by_element)
        return {
            "n_frames": self.n_frames,
            "force_difference_ev_per_ang": self.error,
            "forces_of_the_data_ev_per_ang": self.size,
            "force_difference_by_element": {symbol: error for symbol, (error, _) in self.by_element.items()},
            "same_forces": self.same_forces,
            "reason": self.reason,
            "energy_difference_ev_per_atom": self.energy.difference,
            "energy_offset_ev": offset,
            "energy_difference_with_offset_ev_per_atom": self.energy.left,
        }


def difference(frames: Sequence[Atoms], energies: np.ndarray, forces: Sequence[np.ndarray]) -> Difference:
    """Compare energies and forces of a reference method with those of frames.

    Components of forces that are zero to the last digit in a frame are those of fixed atoms, and are left out.

    Args:
        frames: with energy and forces in a calculator.
        energies: [n_frames] eV, of the reference method.
        forces: [n_frames] arrays [n_atoms, 3] eV/Å, likewise.
    """
    pairs = _Pairs.of(frames, forces)
    bad = pairs.off(pairs.frame) | pairs.off(pairs.number)
    drift = _net_force(pairs, frames) if bad else ""
    small = bool(drift) and _rms(pairs.data - pairs.reference) <= _DRIFT * _rms(pairs.data)
    reason = (drift or _reason(pairs, frames)) if bad else ""
    by_element = {}
    for z in np.unique(pairs.number):
        of_element = pairs.number == z
        data, reference = pairs.data[of_element], pairs.reference[of_element]
        by_element[chemical_symbols[z]] = _rms(data - reference), _rms(data)
    return Difference(
        n_frames=len(frames),
        error=_rms(pairs.data - pairs.reference),
        size=_rms(pairs.data),
        by_element=by_element,
        same_forces=small or not bad,
        reason=reason,
        n_fixed=pairs.n_fixed,
        energy=_energy_offset(frames, np.asarray(energies, dtype=float)),
    )


@dataclass(frozen=True)
class _Pairs:
    """Components of forces that are compared: [n] of data and reference, with the index of the frame and the element."""

    data: np.ndarray
    reference: np.ndarray
    frame: np.ndarray
    number: np.ndarray
    whole: bool  # whether no component was left out
    n_fixed: int

    @classmethod
    def of(cls, frames: Sequence[Atoms], forces: Sequence[np.ndarray]) -> "_Pairs":
        data = np.concatenate([atoms.get_forces(apply_constraint=False) for atoms in frames])
        reference = np.concatenate([np.asarray(one, dtype=float) for one in forces])
        frame = np.repeat(np.arange(len(frames)), [len(atoms) for atoms in frames])
        number = np.concatenate([atoms.numbers for atoms in frames])
        kept = (data != 0.0) | (np.abs(reference) <= NOISE_EV_PER_ANG)
        if not data[kept].any():  # nothing would be left
            kept = np.ones_like(kept)
        rows = np.nonzero(kept)[0]
        n_fixed = int((~kept).any(axis=1).sum())
        return cls(data[kept], reference[kept], frame[rows], number[rows], bool(kept.all()), n_fixed)

    def off(self, groups: np.ndarray) -> set[int]:
        """Which groups (frames, or elements) [n] are off by more than noise."""
        least = max(NOISE_EV_PER_ANG, _SMALL * _rms(self.data))
        found = set()
        for group in np.unique(groups):
            of_group = groups == group
            error = _rms(self.data[of_group] - self.reference[of_group])
            if error > max(least, NOISE * _rms(self.data[of_group])):
                found.add(int(group))
        return found


def _reason(pairs: _Pairs, frames: Sequence[Atoms]) -> str:
    """What a difference beyond noise looks like."""
    return _factor(pairs) or _nothing(pairs) or _charge(frames) or _of_some(pairs, frames) or _everywhere(pairs)


def _nothing(pairs: _Pairs) -> str:
    """Forces of atoms that do not see each other."""
    size = _rms(pairs.reference)
    if size > NOISE * _rms(pairs.data):
        return ""
    return f"Its forces are hardly any, {size:.2g} eV/Å: is that its range, or does it take positions in another unit?"


def _factor(pairs: _Pairs) -> str:
    """One factor for all forces: a unit, or the sign."""
    if not pairs.reference.any():
        return ""
    factor = float(pairs.data @ pairs.reference / (pairs.reference @ pairs.reference))
    if abs(factor - 1.0) < NOISE or _rms(pairs.data - factor * pairs.reference) > NOISE * _rms(pairs.data):
        return ""
    said = f"The forces of the data are {factor:.4g} times its forces"
    units = {
        f"{energy.replace(' ', '')}/{length}": conversion(of_energy, "eV", "energy")
        / conversion(of_length, "Ang", "length")
        for energy, of_energy in ENERGY_UNITS.items()
        for length, of_length in _LENGTHS.items()
    }
    causes = []
    for name, unit in units.items():
        if abs(abs(factor) / unit - 1.0) < _SAME_FACTOR:
            causes.append(f"it gives {name} where eV/Å is asked for" if name != "eV/Å" else "")
        elif abs(abs(factor) * unit - 1.0) < _SAME_FACTOR:
            causes.append(f"the data are in {name}, not in eV/Å")
    if factor < 0.0:
        causes = [
            f"{cause + ' and ' if cause else ''}the sign: one of them has gradients, not forces" for cause in causes
        ]
    found = ", or ".join(filter(None, causes)) or "which is no unit: forces were scaled"
    return f"{said}: {found}."


def _net_force(pairs: _Pairs, frames: Sequence[Atoms]) -> str:
    """The same vector at all atoms of a frame, or the same acceleration."""
    if not pairs.whole or min(map(len, frames)) < 4:
        return ""
    left = (pairs.data - pairs.reference).reshape(-1, 3)
    for what, weights in {
        "vector": [np.ones(len(atoms)) for atoms in frames],
        "acceleration": [atoms.get_masses() for atoms in frames],
    }.items():
        rest, first, largest = left.copy(), 0, 0.0
        for weight in weights:
            of_frame = rest[first : first + len(weight)]
            vector = weight @ of_frame / (weight @ weight)
            of_frame -= weight[:, None] * vector
            largest = max(largest, float(np.abs(vector).max() * weight.max()))
            first += len(weight)
        if _rms(rest) <= max(NOISE * _rms(pairs.data), NOISE_EV_PER_ANG) and _rms(rest) < 0.5 * _rms(left):
            return (
                f"The difference is the same {what} at all atoms of a frame, up to {largest:.2g} eV/Å: one of them has its "
                "net force taken away, or there is a field."
            )
    return ""


def _charge(frames: Sequence[Atoms]) -> str:
    """A charge that frames state, or an odd number of electrons, which neutral systems seldom have."""
    charges = [float(atoms.info.get(properties.total_charge, 0.0)) for atoms in frames]
    stated = sorted({charge for charge in charges if charge})
    if stated:
        values = ", ".join(f"{charge:+g}" for charge in stated)
        return f"The data state a total charge of {values} e: does the calculator use it? Else another method or spin."
    odd = [atoms for atoms in frames if int(atoms.numbers.sum()) % 2]
    if len(odd) < len(frames) or any(atoms.pbc.any() for atoms in frames):
        return ""
    formula = odd[0].get_chemical_formula()
    return (
        f"{formula} has an odd number of electrons if it is neutral: the data are likely of another total charge than the "
        "calculator has, or of another spin; or of another method."
    )


def _of_some(pairs: _Pairs, frames: Sequence[Atoms]) -> str:
    """Elements, or systems with an element, that are off while others agree."""
    elements, wrong = {int(z) for z in np.unique(pairs.number)}, pairs.off(pairs.number)
    off = pairs.off(pairs.frame)
    sound = {int(z) for i, atoms in enumerate(frames) if i not in off for z in atoms.numbers}
    culprits = elements - sound
    if culprits and culprits < elements and all(culprits & set(frames[i].numbers.tolist()) for i in off):
        which = f"All frames that are off have {_symbols(culprits)}, frames without agree"
    elif wrong and wrong < elements:
        which, culprits = f"Only the forces at {_symbols(wrong)} are off", wrong
    else:
        return ""
    return f"{which}: another basis set, pseudopotential or parameters of {_symbols(culprits)}, most likely."


def _everywhere(pairs: _Pairs) -> str:
    """No pattern."""
    if _rms(pairs.data - pairs.reference) < _NEIGHBOUR * _rms(pairs.data):
        return (
            "The forces are off everywhere, but not by much: a neighbouring method, or other settings (functional, "
            "dispersion correction, basis set, k points, electronic temperature)."
        )
    return "The forces are off everywhere, by no common factor: another method, or another total charge or spin."


def _energy_offset(frames: Sequence[Atoms], energies: np.ndarray) -> EnergyOffset:
    """Least squares over the compositions of the frames; what these do not tell apart gets one constant per atom."""
    elements = np.unique(np.concatenate([atoms.numbers for atoms in frames]))
    counts = np.array([[(atoms.numbers == z).sum() for z in elements] for atoms in frames], dtype=float)
    n_atoms = counts.sum(axis=1)
    missing = np.array([atoms.get_potential_energy() for atoms in frames]) - energies
    constant = float(n_atoms @ missing / (n_atoms @ n_atoms))
    beyond, *_ = np.linalg.lstsq(counts / n_atoms[:, None], missing / n_atoms - constant, rcond=1e-6)
    offset = constant + beyond
    return EnergyOffset(
        by_element={chemical_symbols[z]: float(value) for z, value in zip(elements, offset, strict=True)},
        determined=bool(np.linalg.matrix_rank(counts, tol=1e-6) == len(elements)),
        difference=float(np.abs(missing / n_atoms).max()),
        left=float(np.abs((missing - counts @ offset) / n_atoms).max()),
    )


def _symbols(numbers: set[int]) -> str:
    return ", ".join(chemical_symbols[z] for z in sorted(numbers))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0
