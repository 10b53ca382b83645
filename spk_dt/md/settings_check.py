"""What looks at the settings of `spkmd` before a run begins."""

from abc import ABC, abstractmethod
from typing import Any

from hydra.experimental.callback import Callback
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf
from schnetpack.md.utils import MDConfigMerger

__all__ = ["SettingsCheck"]


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
                own = MDConfigMerger().merge_configs(own, OmegaConf.load(to_absolute_path(own.load_config)), overrides)
            self.check(own)
        except (ValueError, OSError) as error:
            raise SystemExit(f"spkmd: {error}") from error
