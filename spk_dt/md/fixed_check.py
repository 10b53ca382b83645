"""Refuses runs of `spkmd` that would let fixed atoms go, or give the others a wrong temperature."""

from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from hydra.utils import get_class, to_absolute_path
from omegaconf import DictConfig, OmegaConf
from schnetpack.md.simulation_hooks import NHCRingPolymerThermostat, NHCThermostat, PILEGlobalThermostat

from spk_dt.md.initial_conditions import FramesInit
from spk_dt.md.random_velocities import MaxwellBoltzmannInit, UniformInit
from spk_dt.md.restart import read_state
from spk_dt.md.settings_check import SettingsCheck
from spk_dt.trajectories.fixed_atoms import mobile_of

__all__ = ["FixedAtoms", "refuse_unfit"]

_REMEDY = "or remove the constraints of ASE from that file"


class FixedAtoms(SettingsCheck):
    """Looks at the settings of a run in which atoms are fixed, see `refuse_unfit`."""

    def check(self, config: DictConfig) -> None:
        """See `refuse_unfit`."""
        refuse_unfit(config)


def refuse_unfit(config: DictConfig) -> None:
    """Refuse settings of `spkmd` that do not go with fixed atoms.

    Thermostats that act on each degree of freedom, or go by the temperature of the system, fit. Those that count the atoms
    themselves (a Nosé-Hoover chain for each molecule, stochastic rescaling of centroids) would heat what moves, and
    barostats would move what is fixed.

    Raises:
        ValueError: naming setting and remedy.
    """
    if config.system.load_system_state is not None:
        if "mobile" in _system_of(config.system.load_system_state):
            raise ValueError(
                f"system.load_system_state='{config.system.load_system_state}' is of a run with fixed atoms, which would "
                f"be let go. Continue it with restart={config.system.load_system_state} and its system.molecule_file."
            )
        return
    if OmegaConf.is_missing(config.system, "molecule_file"):
        return
    file = to_absolute_path(str(config.system.molecule_file))
    if not Path(file).is_file():
        return  # the program says so
    frames = list(ase.io.iread(file, ":"))
    if all(mobile_of(atoms).all() for atoms in frames):
        if config.restart is not None and Path(to_absolute_path(config.restart)).is_file():
            _check_restart(config)
        return
    where = f"system.molecule_file='{config.system.molecule_file}' holds {_count(frames)} atoms fixed"
    initializer = config.system.initializer
    if initializer is None or not issubclass(
        get_class(initializer._target_), (FramesInit, MaxwellBoltzmannInit, UniformInit)
    ):
        name = "null" if initializer is None else initializer._target_
        raise ValueError(
            f"{where}, which system.initializer={name} does not know: they would move. Use system/initializer=frames, "
            f"maxwell_boltzmann or uniform, {_REMEDY}."
        )
    if config.dynamics.barostat is not None:
        raise ValueError(
            f"{where}, and a barostat scales the positions of all atoms. Run at constant volume (dynamics.barostat=null), "
            f"{_REMEDY}."
        )
    thermostat = config.dynamics.thermostat
    if thermostat is not None:
        _check_thermostat(thermostat, where)


def _check_thermostat(thermostat: DictConfig, where: str) -> None:
    """Refuse thermostats that take the degrees of freedom of all atoms for those of the system."""
    kind = get_class(thermostat._target_)
    remedy = None
    if issubclass(kind, NHCRingPolymerThermostat):
        remedy = None if thermostat.get("local", True) else "dynamics.thermostat.local=true"
    elif issubclass(kind, NHCThermostat):
        remedy = None if thermostat.get("massive", False) else "dynamics.thermostat.massive=true"
    elif issubclass(kind, PILEGlobalThermostat):
        remedy = "+dynamics/thermostat=pile_local"
    if remedy is not None:
        raise ValueError(
            f"{where}, and {kind.__name__} counts the degrees of freedom of all atoms: those that move would be too hot. "
            f"Set {remedy}, use another thermostat such as langevin, {_REMEDY}."
        )


def _check_restart(config: DictConfig) -> None:
    """Refuse to continue a run with fixed atoms from a file without."""
    if "mobile" in _system_of(config.restart):
        raise ValueError(
            f"restart='{config.restart}' is of a run with fixed atoms, but system.molecule_file="
            f"'{config.system.molecule_file}' fixes none: they would move. Give the file that the run began with."
        )


def _system_of(checkpoint: str) -> dict[str, Any]:
    """The state of the system in a checkpoint."""
    system: dict[str, Any] = read_state(to_absolute_path(checkpoint))["system"]
    return system


def _count(frames: list[Atoms]) -> int:
    return sum(int((~mobile_of(atoms)).any(axis=1).sum()) for atoms in frames)
