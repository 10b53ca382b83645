r"""The stress, which is the derivative of the energy, from the pressure tensor of a simulation, which has the momenta, too.

.. math:: P = \frac{1}{V} \left(\sum_i m_i v_i \otimes v_i - \frac{\partial E}{\partial \varepsilon} \right), \qquad
    \sigma = \frac{1}{V} \frac{\partial E}{\partial \varepsilon}

LAMMPS and CP2K print P; ASE and SchNetPack have the stress, positive where the cell would contract. A virial is minus the
stress times the volume.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

__all__ = ["nine_components", "stress_or_virial", "without_momenta"]

_TENSOR = re.compile(r'\b(stress|virial)\s*=\s*["{\[]([^"}\]]*)["}\]]')

#: largest difference of a stress from that of a virial of the same frame, as a part of its largest component
_SAME = 1e-3


def without_momenta(atoms: Atoms, pressure: np.ndarray) -> np.ndarray:
    """The stress, [6] in eV/Å^3, in the order of ASE.

    Args:
        atoms: with masses, velocities and cell.
        pressure: [3, 3] pressure tensor, eV/Å^3.
    """
    velocities = atoms.get_velocities()
    kinetic = np.einsum("a,ai,aj->ij", atoms.get_masses(), velocities, velocities) / atoms.get_volume()
    stress = kinetic - pressure
    return full_3x3_to_voigt_6_stress(0.5 * (stress + stress.T))


def nine_components(line: str) -> str:
    """A comment line of extended XYZ, with a stress or virial of six numbers (xx, yy, zz, yz, xz, xy) as nine, for ASE."""

    def nine(match: re.Match[str]) -> str:
        words = re.split(r"[\s,]+", match[2].strip())
        if len(words) != 6:
            return match[0]
        xx, yy, zz, yz, xz, xy = words
        return f'{match[1]}="{" ".join((xx, xy, xz, xy, yy, yz, xz, yz, zz))}"'

    return _TENSOR.sub(nine, line)


def stress_or_virial(info: Mapping[str, Any], atoms: Atoms, where: str) -> dict[str, np.ndarray]:
    """The stress of a frame of extended XYZ, under ``stress``, in eV/Å^3 with the sign of ASE.

    Args:
        info: values of its comment line: ``stress``, or else ``virial`` or ``virials`` in eV, with nine components,
            or with six in the order xx, yy, zz, yz, xz, xy.
        atoms: the frame.
        where: name of the frame, for error messages.

    Returns:
        it as [6] or [3, 3]; nothing if there is none.

    Raises:
        ValueError: if it is not six or nine numbers, a virial is of a frame without volume, or stress and virial differ.
    """
    found = {}
    for name in ("stress", "virial", "virials"):
        if name not in info:
            continue
        value = np.asarray(info[name])
        value = value.reshape(3, 3) if value.shape == (9,) else value
        if value.shape not in ((6,), (3, 3)) or value.dtype.kind not in "if":
            raise ValueError(f"{where}: {name}={info[name]} is not six or nine numbers; repair or remove it.")
        value = voigt_6_to_full_3x3_stress(value) if value.shape == (6,) else value.astype(float)
        if name != "stress":
            if atoms.cell.rank < 3:
                raise ValueError(
                    f"{where}: it has a {name}, but no Lattice, so that it has no volume; remove the {name}."
                )
            value = -value / atoms.get_volume()
        found[name] = value
    values = list(found.values())
    if any(np.abs(value - values[0]).max() > _SAME * max(np.abs(values[0]).max(), 1e-6) for value in values[1:]):
        raise ValueError(
            f"{where}: its {' and '.join(found)} contradict each other: a virial is minus the stress times the volume. "
            "Remove the one that is wrong."
        )
    return {"stress": values[0]} if values else {}
