"""What a trajectory database keeps of a frame beside energy, forces and velocities, under SchNetPack's names.

ASE stores a stress as six numbers and a charge of the system under one of several names; SchNetPack wants arrays whose first
dimension is 1 for a property of the system, and the number of atoms for one of atoms.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from spk_dt import properties

__all__ = [
    "OPTIONAL_UNITS",
    "carry_over",
    "charge_and_spin",
    "set_spin_multiplicity",
    "set_stored_properties",
    "set_total_charge",
    "stored_properties",
    "usable_results",
    "with_charge_and_spin",
]

#: units of the properties that are kept where frames have them: those of ASE
OPTIONAL_UNITS = {
    properties.stress: "eV/Ang/Ang/Ang",
    properties.partial_charges: "e",
    properties.dipole_moment: "e Ang",
    properties.magnetic_moments: "mu_B",
    properties.total_charge: "e",
    properties.spin_multiplicity: "1",
}

#: per property, its name among the results of an ASE calculator, and whether it is of atoms
_RESULTS = {
    properties.stress: ("stress", False),
    properties.partial_charges: ("charges", True),
    properties.dipole_moment: ("dipole", False),
    properties.magnetic_moments: ("magmoms", True),
}

#: per property, its names in `Atoms.info`
_INFO = {
    properties.total_charge: (properties.total_charge, "charge"),
    properties.spin_multiplicity: (properties.spin_multiplicity, "multiplicity", "spin"),
}


def stored_properties(atoms: Atoms, where: str, inputs: Mapping[str, str] | None = None) -> dict[str, np.ndarray]:
    """The properties of a frame that go into the database beside energy, forces and velocities.

    Args:
        atoms: the frame, with the results of a calculator in the units of ASE: stress, charges, dipole, magmoms; and
            ``total_charge`` (or ``charge``, in e) and ``spin_multiplicity`` (or ``spin``) in `Atoms.info`.
        where: name of the frame, for error messages.
        inputs: names of further properties, in `Atoms.arrays` (of atoms) or `Atoms.info` (of the system).

    Returns:
        stress [1, 3, 3], the derivative of the energy with respect to strain, per volume; partial_charges [n_atoms];
        dipole_moment [1, 3]; magnetic_moments [n_atoms] or [n_atoms, 3]; total_charge [1]; spin_multiplicity [1]; each
        where the frame has it. Further ones with the number of atoms, or 1, as first dimension.

    Raises:
        ValueError: if a value has another shape or is not a number, or two names of one input contradict each other.
    """
    results = atoms.calc.results if atoms.calc is not None else {}
    found = {
        key: _result(key, results[name], len(atoms), where)
        for key, (name, _) in _RESULTS.items()
        if results.get(name) is not None
    }
    found |= {key: np.array([value]) for key, value in charge_and_spin(atoms, where).items()}
    for key in inputs or {}:
        if key in atoms.arrays:
            found[key] = _numbers(atoms.arrays[key], f"{where}: its {key}")
        elif key in atoms.info and key not in found:
            value = _numbers(atoms.info[key], f"{where}: its {key}")
            found[key] = value if value.shape[:1] == (1,) else value[None]
    return found


def usable_results(results: Mapping[str, object], atoms: Atoms) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Of the results of a calculator those that `stored_properties` takes, and what is wrong with the others, by name.

    Args:
        results: as an ASE calculator has them.
        atoms: what was computed.
    """
    usable, unusable = {}, {}
    for key, (name, _) in _RESULTS.items():
        if results.get(name) is not None:
            try:
                _result(key, results[name], len(atoms), "the calculator")
                usable[name] = np.array(results[name], dtype=np.float64)
            except ValueError as error:
                unusable[name] = str(error)
    return usable, unusable


def _result(key: str, value: object, n_atoms: int, where: str) -> np.ndarray:
    """A result of a calculator as the database has it; raises ValueError if it is no array of numbers of its shape."""
    name, atomwise = _RESULTS[key]
    found = _numbers(value, f"{where}: its {name}")
    if key == properties.stress:
        found = voigt_6_to_full_3x3_stress(found) if found.shape == (6,) else found
        expected: tuple[int, ...] = (3, 3)
    else:
        expected = (n_atoms,) if atomwise else (3,)
    if key == properties.magnetic_moments and found.ndim == 2:  # not collinear
        expected = (n_atoms, 3)
    if found.shape != expected:
        raise ValueError(f"{where}: its {name} has the shape {found.shape}, not {expected}; repair or remove it.")
    return found if atomwise else found[None]


def charge_and_spin(atoms: Atoms, where: str) -> dict[str, float]:
    """Total charge (e) and spin multiplicity of a frame, where its ``info`` has them under one of their names.

    Raises:
        ValueError: if a value is not a number, or two names of one contradict each other.
    """
    found = {}
    for key, names in _INFO.items():
        values = {name: _scalar(atoms.info[name], where, name) for name in names if atoms.info.get(name) is not None}
        if len({float(value[0]) for value in values.values()}) > 1:
            raise ValueError(f"{where}: atoms.info has {values}, which are names of the same; leave one of them.")
        if values:
            found[key] = float(next(iter(values.values()))[0])
    return found


def with_charge_and_spin(
    frames: Iterable[Atoms], charge: float | None, spin: float | None, source: str
) -> Iterator[Atoms]:
    """Frames with the total charge (e) and spin multiplicity that are stated, None where they are not.

    Raises:
        ValueError: if a multiplicity is not one or more, a value is not a whole number, or a frame says another.
    """
    stated = {key: value for key, value in zip(_INFO, (charge, spin), strict=True) if value is not None}
    if not all(float(value).is_integer() for value in stated.values()) or (spin is not None and spin < 1):
        raise ValueError(
            f"--charge {charge} and --spin {spin}: whole numbers, and a multiplicity 2S + 1 is at least 1."
        )
    for index, atoms in enumerate(frames):
        for key, value in charge_and_spin(atoms, f"{source}, frame {index}").items():
            if stated.get(key, value) != value:
                raise ValueError(
                    f"{source}, frame {index}: it has {key}={value:g}, but {stated[key]:g} is stated. Leave the option out, "
                    "or convert the files that say it apart from the others."
                )
        atoms.info |= stated
        yield atoms


def carry_over(source: Atoms, target: Atoms) -> None:
    """Give a frame that is made anew the results and inputs that `stored_properties` looks for.

    Args:
        source: frame with a calculator.
        target: the same frame, with a calculator that holds at least energy and forces.
    """
    for name, _ in _RESULTS.values():
        if source.calc.results.get(name) is not None:
            target.calc.results[name] = source.calc.results[name]
    for name in (name for names in _INFO.values() for name in names):
        if name in source.info:
            target.info[name] = source.info[name]


def set_stored_properties(atoms: Atoms, data: Mapping[str, np.ndarray]) -> None:
    """Give a frame back what `stored_properties` has taken from it.

    Args:
        atoms: frame with a calculator.
        data: arrays by property, in the units of `OPTIONAL_UNITS`; other properties are left alone.
    """
    for key, (name, atomwise) in _RESULTS.items():
        if key in data:
            atoms.calc.results[name] = data[key] if atomwise else data[key][0]
    for key, names in _INFO.items():
        if key in data:
            atoms.info |= dict.fromkeys(names, float(data[key].reshape(-1)[0]))


def set_total_charge(atoms: Atoms, charge: float) -> None:
    """Tell a calculator the charge of a system, e: in ``info``, and by its atoms, over which ASE's calculators sum."""
    for name in _INFO[properties.total_charge]:
        atoms.info[name] = charge
    if not atoms.has("initial_charges"):
        atoms.set_initial_charges(np.full(len(atoms), charge / len(atoms)))


def set_spin_multiplicity(atoms: Atoms, multiplicity: float) -> None:
    """Tell a calculator the spin multiplicity: in ``info``, and by the sum of initial moments, the unpaired electrons."""
    for name in _INFO[properties.spin_multiplicity]:
        atoms.info[name] = multiplicity
    if multiplicity > 1 and not atoms.has("initial_magmoms"):
        atoms.set_initial_magnetic_moments(np.full(len(atoms), (multiplicity - 1) / len(atoms)))


def _numbers(value: object, what: str) -> np.ndarray:
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{what} is {value!r}, which is not a number or an array of them; repair or remove it."
        ) from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"{what} is not finite; repair or remove it.")
    return numbers


def _scalar(value: object, where: str, name: str) -> np.ndarray:
    number = _numbers(value, f"{where}: {name} in atoms.info")
    if number.size != 1:
        raise ValueError(f"{where}: {name} in atoms.info is {value!r}, not one number; repair or remove it.")
    return number.reshape(1)
