"""The precisions of Lightning in which rollouts can be trained."""

import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision

__all__ = ["loss_scaler"]

#: in them positions, velocities and parameters have 32 bits at least
_ALLOWED = ("32-true", "64-true", "16-mixed", "bf16-mixed")


def loss_scaler(plugin: Precision) -> torch.amp.GradScaler | None:
    """What scales the loss of a training, None if nothing does.

    In mixed precision energies and forces are computed with 16 bits, and are off by some 1e-3 of their size (bfloat16:
    1e-2). Gradients of the loss are scaled; the energy is not, before its gradient gives the forces. What is below the
    smallest number of float16 on that way adds an error of some 3e-6 in the unit of forces, which matters where typical
    forces are below 1e-3.

    Args:
        plugin: the precision of the trainer.

    Raises:
        ValueError: if positions and velocities would have 16 bits, or another plugin than Lightning's `MixedPrecision`
            mixes precisions, since nothing is known of how that one scales the loss.
    """
    if plugin.precision not in _ALLOWED:
        raise ValueError(
            f"trainer.precision={plugin.precision}: with 16 bits, positions are rounded by more than atoms move in a time "
            "step. Set trainer.precision=16-mixed or bf16-mixed, which keep positions and parameters in 32 bits, or 32."
        )
    if "mixed" in plugin.precision and not isinstance(plugin, MixedPrecision):
        raise ValueError(
            f"trainer.precision={plugin.precision} with {type(plugin).__name__}: how it scales the parts of the loss of a "
            "rollout is not known. Set +trainer.strategy=ddp, or trainer.precision=32."
        )
    return getattr(plugin, "scaler", None)
