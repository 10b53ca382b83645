from spk_dt.data.datamodule import TrajectoryDataModule
from spk_dt.data.dtegnn import DTEGNN
from spk_dt.data.embedded import H2Pd6Graphene
from spk_dt.data.load import load_frames
from spk_dt.data.md17 import MD17Trajectory
from spk_dt.data.neighborlist import WindowNeighborList
from spk_dt.data.splitting import TimeBlockSplit, TrajectorySplit
from spk_dt.data.windows import TrajectoryWindows, window_starts
from spk_dt.trajectories.database import Trajectory, TrajectoryWriter, read_trajectories
from spk_dt.trajectories.frames import Frames

__all__ = [
    "DTEGNN",
    "Frames",
    "H2Pd6Graphene",
    "MD17Trajectory",
    "TimeBlockSplit",
    "Trajectory",
    "TrajectoryDataModule",
    "TrajectorySplit",
    "TrajectoryWindows",
    "TrajectoryWriter",
    "WindowNeighborList",
    "load_frames",
    "read_trajectories",
    "window_starts",
]
