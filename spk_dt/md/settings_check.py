"""What looks at the settings of `spkmd` before a run begins."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf
from schnetpack.md.utils import MDConfigMerger

from spk_dt.folders.plain_yaml import refuse_what_is_not_plain

__all__ = ["SettingsCheck", "refuse_foreign_targets"]


#: packages whose classes a config of somebody else may ask for
_PACKAGES = ("schnetpack.md.", "schnetpack.transform.", "spk_dt.md.")


def refuse_foreign_targets(loaded: Any, own: Any, file: Path) -> None:
    """Refuse a config file that asks for what neither our packages nor the user's own settings have.

    Hydra calls whatever a ``_target_`` names.

    Args:
        loaded: the config of the file.
        own: the config of the command line.
        file: for the message.

    Raises:
        ValueError: with the name, and where it stands.
    """
    known = {target for _, target in _targets(own, "")}
    for where, target in _targets(loaded, ""):
        if target not in known and not target.startswith(_PACKAGES):
            raise ValueError(
                f"load_config='{file}' asks for '{target}' ({where}). If you trust it, name it on the command line: "
                f"{where}={target}"
            )


def _targets(config: Any, where: str) -> Iterator[tuple[str, str]]:
    """Where a config names a function or class, and which."""
    plain = OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else config
    inside = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in inside:
        name = ".".join([where, str(key)]) if where else str(key)
        if key == "_target_" and value is not None:
            yield name, str(value)
        else:
            yield from _targets(value, name)


class SettingsCheck(Callback, ABC):
    """Hydra callback that looks at the settings of a run before it begins.

    Raises:
        SystemExit: if something does not fit; Hydra turns other exceptions of a callback into warnings.
    """

    @abstractmethod
    def check(self, config: DictConfig) -> None:
        """Raise ValueError, naming setting and remedy, if settings do not fit."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the settings, those of the file of ``load_config`` included."""
        try:
            overrides = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
            own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            if own.load_config is not None:
                file = Path(to_absolute_path(own.load_config))
                refuse_what_is_not_plain(file)
                loaded = OmegaConf.load(file)
                refuse_foreign_targets(loaded, own, file)
                own = MDConfigMerger().merge_configs(own, loaded, overrides)
            self.check(own)
        except (ValueError, OSError) as error:
            raise SystemExit(f"spkmd: {error}") from error
