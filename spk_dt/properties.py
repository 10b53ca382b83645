"""Keys that spk_dt adds to SchNetPack's dictionaries; everything else keeps its name in `schnetpack.properties`."""

from typing import Final

# SchNetPack's names, for code that does not load torch

#: [n_systems] energy
energy: Final[str] = "energy"

#: [n_atoms, 3] forces
forces: Final[str] = "forces"

#: [n_atoms, 3] positions
R: Final[str] = "_positions"

#: [n_systems, 3, 3] cell
cell: Final[str] = "_cell"

# our own

#: [n_atoms, 3] velocities, in the database in Å/fs (or what its metadata says), in a batch in length unit / time unit
velocities: Final[str] = "velocities"

#: [n_systems] time between two frames, in the unit of time that follows from length, energy and Dalton
time_step: Final[str] = "time_step"

#: [n_systems] steps of the simulation between two frames
inner_steps: Final[str] = "inner_steps"

#: [n_atoms, S - 1, 3] what a thermostat added to the positions from each frame of a window to the next, in length unit
position_kicks: Final[str] = "position_kicks"

#: [n_atoms, S - 1, 3] likewise to the velocities, in length unit / time unit
velocity_kicks: Final[str] = "velocity_kicks"

#: [n_atoms] largest displacement of each atom from the first frame of a window, in length unit
window_motion: Final[str] = "window_motion"

#: [n_atoms] how far each atom may move before pairs within the cutoff may be missing among those of a batch, in length unit
pair_skin: Final[str] = "pair_skin"

#: suffix of a target along a window: "energy_window" is [n_systems, S], "forces_window" [n_atoms, S, 3]
window_suffix: Final[str] = "_window"


def window(key: str) -> str:
    """Key of the target `key` along the frames of a window."""
    return key + window_suffix
