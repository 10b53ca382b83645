"""Which reference method made the data, as a database says of itself."""

from importlib.util import find_spec
from pathlib import Path

from spk_dt.trajectories.checked_database import read_metadata

__all__ = ["OF_DATA", "reference_of_data"]

#: in place of the name of a calculator: the one that the data name
OF_DATA = "data"


def reference_of_data(source: str | Path, option: str) -> str:
    """The reference method that a database names, if it can be used here.

    Databases come from others. So only methods of tblite are taken from there: an import path would let the database choose
    what code is run.

    Args:
        source: trajectory database; ``spkdt generate`` writes the method.
        option: by which users name another one, for messages, with the space or equals sign that follows it.

    Returns:
        its name, see `spk_dt.labels.calculator.reference_calculator`.

    Raises:
        ValueError: if the database names none, or another than one of tblite.
        ImportError: if tblite is not installed.
    """
    made_by = read_metadata(source).get("reference")
    name = made_by.get("reference") if isinstance(made_by, dict) else None
    if not isinstance(name, str):
        raise ValueError(
            f"'{source}' does not say by which reference method it was made; name it: {option}package.module:Class"
        )
    if not name.startswith("tblite:"):
        raise ValueError(
            f"the reference method of '{source}', '{name}', is only used if you name it: {option}package.module:Class"
        )
    if find_spec("tblite") is None:
        raise ImportError(
            f"the reference method of the data, {name}, is not installed: pip install 'spk_dt[reference]'"
        )
    return name
