from spk_dt.data.readers.base import RawTrajectory, Reader

__all__ = ["RawTrajectory", "Reader"]
