"""The beginning of a process that simulates beside others for a certificate."""

from spk_dt.foreign_warnings import silence

__all__ = ["begin"]


def begin() -> None:
    """Compute in one thread, and say nothing that the process which has started this one says as well."""
    silence()
    import torch

    from spk_dt.models import already_told  # loads SchNetPack, which warns at its import

    torch.set_num_threads(1)
    already_told()
