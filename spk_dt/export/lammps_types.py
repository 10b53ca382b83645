"""What LAMMPS inputs leave open: the elements of their atom types, and the unit of energy."""

import logging
from collections.abc import Sequence

from ase.data import atomic_numbers, chemical_symbols

from spk_dt.export.stored import Stored, stored_elements

__all__ = ["ENERGY_UNITS", "check_types"]

log = logging.getLogger(__name__)

#: energies of LAMMPS's unit styles; both have lengths in Å
ENERGY_UNITS = {"metal": "eV", "real": "kcal/mol"}


def check_types(stored: Stored, types: Sequence[str]) -> list[int]:
    """Refuse symbols that are none, and elements that the model was not trained on, as far as that is known.

    Args:
        stored: the model.
        types: symbol of the element of each atom type, in order; none takes the elements of the training data.

    Returns:
        atomic numbers that the model may be used for.

    Raises:
        ValueError: if a type is no element, or not one of the model, or nothing says which elements there are.
    """
    given = f"--types {','.join(types)}"
    if any(symbol not in atomic_numbers or symbol == "X" for symbol in types):
        raise ValueError(f"{given}: name the element of each atom type, as --types H,C,Pd.")
    try:
        known = stored_elements(stored.file, stored.run)
    except ValueError as error:
        reason = str(error).partition(" State")[0]
        if not types:
            raise ValueError(f"{reason} State them: --types H,C,Pd") from error
        log.warning("%s", reason)
        return sorted({atomic_numbers[symbol] for symbol in types})
    symbols = [chemical_symbols[number] for number in known]
    if strange := sorted(set(types) - set(symbols)):
        raise ValueError(
            f"{given}: '{stored.file}' was not trained on {', '.join(strange)}, but on {', '.join(symbols)}."
        )
    return known
