"""What the checkpoints of a task of dynamic training keep, and who stores the model in the end."""

from typing import Any, Self

from hydra.core.hydra_config import HydraConfig
from schnetpack import AtomisticTask

from spk_dt import processes

__all__ = ["CheckpointedTask"]


class CheckpointedTask(AtomisticTask):
    """A task whose checkpoints keep S, and the offsets of the model."""

    rollout_length: int

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:
        """As of Lightning. Of several processes of ``spktrain``, which store the best model now, the first one goes on."""
        if processes.rank() > 0 and HydraConfig.initialized():
            raise SystemExit(0)
        loaded: Self = super().load_from_checkpoint(*args, **kwargs)
        return loaded

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep S."""
        checkpoint["rollout_length"] = self.rollout_length

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up S, and the offsets that the model had, of which fine-tuning may have added one."""
        stored = checkpoint.get("hyper_parameters", {}).get("model")
        if stored is not None:
            self.model.postprocessors = stored.postprocessors.to(self.device)
        self.rollout_length = checkpoint.get("rollout_length", self.rollout_length)
