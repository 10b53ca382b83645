"""Makes the configs of spk_dt visible to ``spktrain`` and ``spkmd``.

Hydra imports every package below the namespace ``hydra_plugins`` and calls its `SearchPathPlugin` in each Hydra
program of the environment. This one acts only where the program's own configs are SchNetPack's, and appends, so that
files of SchNetPack with the same name win.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

#: Where a SchNetPack program looks for its own configs -> our folder below ``configs/`` with the same groups.
_CONFIGS_OF = {"schnetpack.configs": ".", "schnetpack.md.md_configs": "md"}

#: The same -> folder with files of Hydra's own groups, which the program's configs do not name, beside this file.
_BEFORE_HYDRA = {"schnetpack.configs": "spktrain"}


def _config_dir() -> Path:
    """Folder of our configs: ``spk_dt/configs`` in a wheel, ``configs`` beside the package in a checkout."""
    package = Path(str(files("spk_dt")))
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _pretrained(model_file: str, what: str) -> Any:
    """What a stored model tells without being loaded: a config may be resolved only to be looked at.

    Imported where it is asked for, since every Hydra program loads this file.
    """
    from spk_dt.training.pretrained import read_attribute

    return read_attribute(model_file, what)


class SpkDtSearchPathPlugin(SearchPathPlugin):
    """Appends our config folder to the search path of SchNetPack's programs, and what belongs to it.

    That is the resolver that the configs need; and the programs say nothing of what nobody can act on.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append our configs if the main entry of the search path is SchNetPack's; do nothing otherwise."""
        main = next((entry.path for entry in search_path.get_path() if entry.provider == "main"), None)
        if main is None:
            return
        package = main.removeprefix("pkg://").replace("/", ".")
        if package in _CONFIGS_OF:
            from spk_dt.foreign_warnings import silence_in_programs
            from spk_dt.imports import look_into_current_folder

            silence_in_programs()
            look_into_current_folder()  # a `_target_` of the user's own
            OmegaConf.register_new_resolver("spk_dt.pretrained", _pretrained, replace=True)
            folder = (_config_dir() / _CONFIGS_OF[package]).resolve()
            # not as_uri(): Hydra does not unquote
            search_path.append(provider="spk_dt", path=f"file://{folder.as_posix()}")
            if package in _BEFORE_HYDRA:
                folder = Path(__file__).resolve().parent / _BEFORE_HYDRA[package]
                search_path.prepend(provider="spk_dt.hydra", path=f"file://{folder.as_posix()}")
