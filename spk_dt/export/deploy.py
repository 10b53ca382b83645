"""Models as TorchScript files for ``pair_style schnetpack`` of LAMMPS, which comes with SchNetPack.

The pair style reads the tensors ``energy`` and ``forces`` in single precision, hands over positions in single precision and
Å, and takes what it gets for LAMMPS's units; it has no virial and runs in one process. So the file has the units of the
LAMMPS input, computes from distances in double precision, leaves the offsets of the energy out (single precision cannot
keep the digits of a sum of many), and ends the run at elements that the model does not know. `spk_dt.export.write` and
`spk_dt.export.lammps` have none of these limits.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Dict  # noqa: UP035  # TorchScript reads it

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.neighborlist import neighbor_list
from torch import Tensor, nn

from spk_dt.export.agreement import check_agreement
from spk_dt.export.lammps_types import ENERGY_UNITS, check_types
from spk_dt.export.member import Member, member_of
from spk_dt.export.stored import read_for_export
from spk_dt.folders.file_hash import file_hash
from spk_dt.folders.whole_file import whole_file
from spk_dt.labels.unit_check import Unit
from spk_dt.units import conversion

__all__ = ["Deployed", "deploy_model"]

#: eV and eV/Å by which the file may differ from the model, by its precision; what it gives is rounded to single precision
_AGREEMENT = {64: 1e-5, 32: 1e-3}


class PairStyleModel(nn.Module):
    """What is in the file: energy and forces of one system.

    Args:
        member: the model, without offsets.
        types: atomic numbers that it knows.
        energy: eV, unit of LAMMPS.
    """

    def __init__(self, member: Member, types: Sequence[int], energy: float) -> None:
        super().__init__()
        self.member, self.energy = member, energy
        known = torch.zeros(len(chemical_symbols), dtype=torch.bool)
        known[list(types)] = True
        self.known: Tensor
        self.register_buffer("known", known)

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        """Energy [1] and forces [n_atoms, 3] in single precision and in the units of LAMMPS.

        Args:
            inputs: as the pair style gives them. ``_positions`` [n_atoms, 3], Å, anywhere; ``_offsets`` [n_pairs, 3], Å,
                from an atom to its image that is meant; ``_idx_i``, ``_idx_j`` [n_pairs]; ``_atomic_numbers``, ``_idx_m``
                [n_atoms]; ``_n_atoms`` [1].
        """
        numbers = inputs["_atomic_numbers"]
        strange = numbers[~self.known[numbers.clamp(0, self.known.shape[0] - 1)]]
        if strange.numel() > 0:
            raise ValueError(
                "this model was not trained on the element with atomic number "
                + str(int(strange[0]))
                + "; look at pair_coeff"
            )
        positions = inputs["_positions"].detach().to(torch.float64).requires_grad_(True)
        idx_i, idx_j = inputs["_idx_i"], inputs["_idx_j"]
        own = {
            "_atomic_numbers": numbers,
            "_idx_i": idx_i,
            "_idx_j": idx_j,
            "_idx_m": inputs["_idx_m"],
            "_n_atoms": inputs["_n_atoms"],
            "_Rij": positions[idx_j] - positions[idx_i] + inputs["_offsets"].to(torch.float64),
        }
        energy = self.member(own).sum() + 0.0 * positions.sum()  # atoms without neighbours have a gradient, too
        (gradient,) = torch.autograd.grad([energy], [positions])
        assert gradient is not None
        if not bool(torch.isfinite(gradient).all()):
            raise ValueError("forces of the model are not finite; atoms are where it knows nothing")
        unit = 1.0 / self.energy
        return {
            "energy": (unit * energy.detach()).to(torch.float32).reshape(1),
            "forces": (-unit * gradient).to(torch.float32),
        }


@dataclass(frozen=True)
class Deployed:
    """A file that was written, and how it is used.

    Args:
        file: its path.
        types: symbols of the atom types of the LAMMPS input, in order.
        units: unit style of LAMMPS.
        cutoff: Å.
        offsets: eV by symbol, left out of the energies.
    """

    file: Path
    types: Sequence[str]
    units: str
    cutoff: float
    offsets: Mapping[str, float]

    def input_lines(self) -> str:
        """Lines of a LAMMPS input."""
        numbers = " ".join(str(atomic_numbers[symbol]) for symbol in self.types)
        order = ", ".join(f"{i} {symbol}" for i, symbol in enumerate(self.types, 1))
        path = f'"{self.file}"' if set(str(self.file)) & set(" #&$") else str(self.file)
        offsets = ", ".join(f"{symbol} {value:.6f}" for symbol, value in self.offsets.items())
        lines = {
            "newton      off": "before read_data",
            f"units       {self.units}": "",
            "atom_style  atomic": "",
            "read_data   start.data": f"yours, with the atom types {order}",
            "plugin      load ./schnetpackplugin.so": "unless LAMMPS was built with the pair style",
            "pair_style  schnetpack": "one process; pressures, and barostats, are wrong: there is no virial",
            f"pair_coeff  * * {path} {numbers}": f"atomic numbers of the atom types; cutoff {self.cutoff:g} Å",
        }
        wide = max(map(len, lines))
        commands = [f"{line:{wide}}  # {comment}" if comment else line for line, comment in lines.items()]
        rest = "# Energies are without the offsets of the model: single precision does not resolve their sum. They are (eV):"
        return "\n".join([*commands, rest, f"# {offsets}"])


def deploy_model(
    model: str | Path,
    out: str | Path,
    types: Sequence[str] = (),
    units: str = "metal",
    precision: int = 64,
    energy_unit: Unit | None = None,
    position_unit: Unit | None = None,
) -> Deployed:
    """Write a model as a file for ``pair_style schnetpack``.

    Args:
        model: a ``best_model``, or the folder of its run.
        out: file to write.
        types: symbols of the atom types of the LAMMPS input, in order; none takes the elements of the training data, by
            atomic number.
        units: of the LAMMPS input, ``metal`` or ``real``; the file gives energies and forces in them.
        precision: bits of the numbers in the networks, 32 or 64. Positions and results have 32.
        energy_unit: unit of the model's energies; None takes what its run says.
        position_unit: its unit of length, likewise.

    Returns:
        what was written.

    Raises:
        FileExistsError: if `out` is there.
        FileNotFoundError: if the model is not.
        ValueError: if the model cannot be expressed, its units or elements are not known, it was not trained on one of the
            types, or the file would not give what the model gives.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"'{out}' is there already; remove it, or choose another name.")
    if units not in ENERGY_UNITS:
        raise ValueError(f"--units {units}: the pair style takes positions for Å; write 'units metal' or 'units real'.")
    stored = read_for_export(model, energy_unit, position_unit)
    known = check_types(stored, types)
    member = member_of(stored, precision)
    member.offsets = torch.zeros_like(member.offsets)
    network = PairStyleModel(member, known, conversion(ENERGY_UNITS[units], "eV", "energy")).eval()
    about = {
        "cutoff": repr(stored.cutoff),  # the one that the pair style reads
        "units": units,
        "elements": " ".join(chemical_symbols[number] for number in known),
        "model_sha256": file_hash(stored.file),
        "spk_dt": version("spk_dt"),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        with whole_file(out, make_folder=True) as part:
            torch.jit.save(torch.jit.script(network), str(part), _extra_files=about)
            of_file = partial(
                _of_file, torch.jit.load(str(part)), stored.cutoff, network.energy, stored.offsets.numpy()
            )
            check_agreement(of_file, [stored], known, _AGREEMENT[precision])
    symbols = list(types) or [chemical_symbols[number] for number in known]
    offsets = {symbol: float(stored.offsets[atomic_numbers[symbol]]) for symbol in dict.fromkeys(symbols)}
    return Deployed(out, symbols, units, stored.cutoff, offsets)


def _of_file(
    file: nn.Module, cutoff: float, unit: float, offsets: np.ndarray, atoms: Atoms
) -> tuple[float, np.ndarray]:
    """Energy (eV), with the offsets, and forces (eV/Å) of atoms without a cell, as the pair style asks for them."""
    i, j = (torch.tensor(index) for index in neighbor_list("ij", atoms, cutoff))
    found = file(
        {
            "_positions": torch.tensor(atoms.positions, dtype=torch.float32),
            "_idx_i": i,
            "_idx_j": j,
            "_idx_m": torch.zeros(len(atoms), dtype=torch.int64),
            "_offsets": torch.zeros((len(i), 3)),
            "_cell": torch.zeros((3, 3)),
            "_n_atoms": torch.tensor([len(atoms)]),
            "_atomic_numbers": torch.tensor(atoms.numbers, dtype=torch.int64),
        }
    )
    return unit * float(found["energy"].detach()) + float(offsets[atoms.numbers].sum()), unit * found[
        "forces"
    ].double().numpy()
