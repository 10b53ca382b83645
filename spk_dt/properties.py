"""Keys that spk_dt adds to SchNetPack's dictionaries; everything else keeps its name in `schnetpack.properties`."""

from typing import Final

# SchNetPack's names, for code that does not load torch

#: [n_systems] energy
energy: Final[str] = "energy"

#: [n_atoms, 3] forces
forces: Final[str] = "forces"

#: [n_systems, 3, 3] derivative of the energy with respect to strain, per volume
stress: Final[str] = "stress"

#: [n_atoms] charges of the atoms
partial_charges: Final[str] = "partial_charges"

#: [n_systems, 3] dipole moment
dipole_moment: Final[str] = "dipole_moment"

#: [n_systems] charge of the system, an input of some models
total_charge: Final[str] = "total_charge"

#: [n_systems] number of unpaired electrons plus one, an input of some models
spin_multiplicity: Final[str] = "spin_multiplicity"

#: [n_atoms, 3] positions
R: Final[str] = "_positions"

#: [n_systems, 3, 3] cell
cell: Final[str] = "_cell"

# our own

#: [n_atoms, 3] velocities, in the database in Å/fs (or what its metadata says), in a batch in length unit / time unit
velocities: Final[str] = "velocities"

#: [n_atoms] or [n_atoms, 3] magnetic moments of the atoms, in Bohr magnetons; SchNetPack has no name for them
magnetic_moments: Final[str] = "magnetic_moments"

#: [n_systems] time between two frames, in the unit of time that follows from length, energy and Dalton
time_step: Final[str] = "time_step"

#: [n_systems] steps of the simulation between two frames
inner_steps: Final[str] = "inner_steps"

#: [n_atoms, 3] false for components of positions that are held fixed
mobile: Final[str] = "_mobile"

#: [n_atoms, 3] false for components of forces that do not count in losses, see `spk_dt.data.fixed_forces`
counted_forces: Final[str] = "_counted_forces"

#: [n_atoms, S - 1, 3] what a thermostat added to the positions from each frame of a window to the next, in length unit
position_kicks: Final[str] = "position_kicks"

#: [n_atoms, S - 1, 3] likewise to the velocities, in length unit / time unit
velocity_kicks: Final[str] = "velocity_kicks"

#: [n_atoms] largest displacement of each atom from the first frame of a window, in length unit
window_motion: Final[str] = "window_motion"

#: [n_atoms] how far each atom may move before pairs within the cutoff may be missing among those of a batch, in length unit
pair_skin: Final[str] = "pair_skin"

#: what makes a system that can be simulated, and collated with others; each sample has it
STRUCTURE: Final[tuple[str, ...]] = (
    "_idx",
    "_n_atoms",
    "_atomic_numbers",
    R,
    cell,
    "_pbc",
    "masses",
    velocities,
    time_step,
    inner_steps,
    mobile,
)

#: pairs of the first frame; rollouts and simulations find them anew
PAIRS: Final[tuple[str, ...]] = ("_idx_i", "_idx_j", "_offsets", "_idx_i_local", "_idx_j_local")

#: what belongs to a window beside its targets
OF_WINDOW: Final[tuple[str, ...]] = (position_kicks, velocity_kicks, window_motion, pair_skin, counted_forces)

#: what else depends on the positions of the first frame
_OF_ONE_FRAME: Final[tuple[str, ...]] = (
    *("_Rij", "_n_nbh", "_idx_i_lr", "_idx_j_lr", "_offsets_lr", "_Rij_lr"),
    *("_idx_i_triples", "_idx_j_triples", "_idx_k_triples"),
)

#: what the reference method computes for a geometry, and so is not that of another
RESULTS: Final[frozenset[str]] = frozenset(
    {
        *(energy, forces, stress, partial_charges, dipole_moment, magnetic_moments),
        *("polarizability", "hessian", "dipole_derivatives", "polarizability_derivatives"),
        *("shielding", "nuclear_spin_coupling"),
    }
)

#: suffix of a target along a window: "energy_window" is [n_systems, S], "forces_window" [n_atoms, S, 3]
window_suffix: Final[str] = "_window"


def elements_of(key: str) -> str:
    """Key of the atomic numbers [n_entries] of the entries of the target `key`, where some of its entries do not count."""
    return f"{key}_elements"


def window(key: str) -> str:
    """Key of the target `key` along the frames of a window."""
    return key + window_suffix


def is_input(key: str) -> bool:
    """Whether a simulation from a sample goes on with the value under `key`.

    So it is for the structure, and for all that is not known to be a result, a target along a window, a pair, or of the
    window: a model may read it (total charge, spin, an external field).
    """
    of_frame = key in RESULTS or key in (*PAIRS, *OF_WINDOW, *_OF_ONE_FRAME) or key.endswith(window_suffix)
    return key in STRUCTURE or not of_frame
