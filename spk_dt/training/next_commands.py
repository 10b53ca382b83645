"""What can be done after a training, as commands that work from where it was started."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig

from spk_dt.labels.reference_of_data import reference_of_data

__all__ = ["hardening_command", "next_commands", "run_folder"]

#: a reference method that users must name
_REFERENCE = "package.module:Class"


def run_folder(trainer: pl.Trainer) -> Path:
    """The folder of the run, as seen from where the program was started."""
    if not HydraConfig.initialized():
        return Path(trainer.default_root_dir)
    runtime = HydraConfig.get().runtime
    return Path(os.path.relpath(runtime.output_dir, runtime.cwd))


def hardening_command(data: Any, folder: Path) -> str:
    """The command that hardens the model in the folder of a run."""
    options = "" if _is_embedded(data) else f" data=trajectory data.datapath={_source(data)}"
    reference = "" if _names_reference(data) else f" callbacks.on_policy.labels.reference={_REFERENCE}"
    return f"spktrain experiment=dt_last model_file={folder}{options}{reference}"


def next_commands(data: Any, folder: Path) -> list[str]:
    """Commands for the model in the folder of a run."""
    reference = "" if _names_reference(data) else f" --reference {_REFERENCE}"
    split = "" if len(getattr(data, "test_idx", "?")) else " --split val"
    return [
        f"spkdt plot {folder}",
        f"spkdt evaluate {_source(data)} {folder} --steps 300 --out evaluation{split}",
        f"spkdt certify {folder} {_source(data)} --time 10 --number 10 --out certificate{reference}{split}",
    ]


def _is_embedded(data: Any) -> bool:
    from spk_dt.data.embedded import SPLITS, H2Pd6Graphene

    if not isinstance(data, H2Pd6Graphene):
        return False
    names = {one.name for one in data.frames.trajectories}  # the database may be another
    return names == {name for split in SPLITS.values() for name in split}


def _source(data: Any) -> str:
    return "embedded" if _is_embedded(data) else str(getattr(data, "datapath", "DATA.db"))


def _names_reference(data: Any) -> bool:
    """Whether the data name their reference method, so that it need only be installed."""
    try:
        reference_of_data(data.datapath, "")
    except ValueError:
        return False
    except (ImportError, OSError, AttributeError):
        pass
    return True
