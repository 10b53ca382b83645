"""Trajectories from the files of other programs to a database of frames, and whether they are sound. Without torch.

readers, convert           files of other programs, to frames (`ase.Atoms`), to a database
unwrapping, velocities     what frames may lack
database, part_file        the database: who follows whom, at what time step; the only writer of SchNetPack's format
frames, diagnosis          frames as arrays, and what is wrong with them (``spkdt check``)
"""

from spk_dt.trajectories.database import Trajectory, TrajectoryWriter, read_trajectories

__all__ = ["Trajectory", "TrajectoryWriter", "read_trajectories"]
