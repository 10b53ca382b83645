"""Refuses runs of `spkmd` at constant pressure without a stress: the pressure would be that of the momenta alone."""

from pathlib import Path

import ase.io
import numpy as np
from hydra.utils import get_class, to_absolute_path
from omegaconf import DictConfig, OmegaConf

from spk_dt.md.model_inputs import InputsCalculator, stress_of_files
from spk_dt.md.settings_check import SettingsCheck

__all__ = ["StressForBarostat", "refuse_without_stress"]


class StressForBarostat(SettingsCheck):
    """Looks at the settings of a run with a barostat, see `refuse_without_stress`."""

    def check(self, config: DictConfig) -> None:
        """See `refuse_without_stress`."""
        refuse_without_stress(config)


def refuse_without_stress(config: DictConfig) -> None:
    """Refuse a barostat if the calculator has no stress, or a system no cell.

    Raises:
        ValueError: naming setting and remedy.
    """
    if config.dynamics.barostat is None:
        return
    _check_calculator(config.calculator)
    if config.system.load_system_state is None and not OmegaConf.is_missing(config.system, "molecule_file"):
        _check_cells(str(config.system.molecule_file))


def _check_calculator(calculator: DictConfig) -> None:
    if calculator.get("stress_key") is not None:
        return
    asked = "set calculator.stress_key=stress"
    kind = get_class(calculator._target_)
    if not issubclass(kind, InputsCalculator):
        raise ValueError(
            f"a barostat needs the stress, which calculator._target_={calculator._target_} is not asked for. If it has one, "
            f"{asked}; else run at constant volume (dynamics.barostat=null)."
        )
    files = calculator.get("model_files") or [calculator.model_file]
    files = [to_absolute_path(str(file)) for file in ([files] if isinstance(files, str) else files)]
    if not all(Path(file).is_file() for file in files):
        return  # the program says so
    if stress_of_files(files) is None:
        without = next((file for file in files if stress_of_files(file) is None), files[0])
        raise ValueError(
            f"a barostat needs the stress, and '{without}' was not trained on it. Train it on data with a stress (spktrain "
            f"experiment=dt_finetune model_file={without} data=trajectory data.datapath=... task/stress=trained, or a new "
            f"model with task/stress=trained); or {asked} to have the stress of this model as it is: its pressures may be "
            "far off, compare them with the reference."
        )


def _check_cells(molecule_file: str) -> None:
    file = to_absolute_path(molecule_file)
    if not Path(file).is_file():
        return  # the program says so
    for i, atoms in enumerate(ase.io.iread(file, ":")):
        volume = float(np.linalg.det(atoms.cell.array))
        if volume < 1e-6 or not atoms.pbc.any():
            what = (
                "is left-handed: exchange two of its vectors" if volume < -1e-6 else "has no volume or is not periodic"
            )
            raise ValueError(
                f"a barostat needs a cell, but that of structure {i} of system.molecule_file='{molecule_file}' {what}."
            )
