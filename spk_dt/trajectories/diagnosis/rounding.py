r"""Digits of printed numbers, and what rounding alone displaces atoms by.

Numbers of a file are whole multiples of some power of ten, in the unit of the file: OUTCAR has five decimals of positions.
Their error is uniform, :math:`\sigma = 10^{-d} / \sqrt{12}`. Left to themselves over W steps of time T (see
`spk_dt.trajectories.diagnosis.residual`), errors of positions, velocities and accelerations displace an atom by D with

.. math:: \langle D^2 \rangle = 2 \sigma_x^2 + (W T \sigma_v)^2 + \tfrac13 W^3 T^4 \sigma_a^2

in each direction; where velocities are central differences of the positions, :math:`\sigma_v = \sigma_x / (\sqrt2\,T)`, and
in a first frame without one before it :math:`\sigma_v = \sqrt2\,\sigma_x / T`.
"""

from dataclasses import dataclass

import ase.units
import numpy as np

from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.stated import UNITS

__all__ = ["Rounding", "measure_rounding", "spacing"]

#: part of the numbers that have to be on the grid: unwrapped positions are moved by lattice vectors, which have more digits
_MOST = 0.6
#: distance from the grid, in units of its spacing
_ON = 1e-3
#: fewer numbers than this do not show it
_FEW = 12
_DECIMALS = range(1, 10)


@dataclass(frozen=True)
class Rounding:
    """Standard deviations of rounding; zero where numbers have all digits.

    Args:
        position: Å.
        velocity: Å/fs; [n_atoms].
        acceleration: Å/fs²; [n_atoms].
        first_velocity: of the first frame, Å/fs; [n_atoms].
    """

    position: float
    velocity: np.ndarray
    acceleration: np.ndarray
    first_velocity: np.ndarray

    def displaced(self, window: int, step_fs: float, n_starts: int) -> np.ndarray:
        """[n_atoms] mean squared displacement within windows of steps from the first `n_starts` frames on, Å²."""
        velocity = self.velocity**2 + (self.first_velocity**2 - self.velocity**2) / max(n_starts, 1)
        return 3.0 * (
            2.0 * self.position**2
            + (window * step_fs) ** 2 * velocity
            + window**3 * step_fs**4 * self.acceleration**2 / 3.0
        )


def measure_rounding(reader: PieceReader, atoms: np.ndarray) -> Rounding:
    """Look at the digits of some frames.

    Args:
        reader: the trajectory.
        atoms: indices of the atoms that count.
    """
    frames = np.unique(np.linspace(0, len(reader) - 1, 4).astype(int)).tolist()
    pieces = [reader.read(frame, frame + 1) for frame in frames]
    masses = reader.masses[:, None]
    positions = np.array([piece.positions[0] for piece in pieces])
    velocities = np.array([piece.velocities[0] for piece in pieces])
    forces = np.array([piece.accelerations[0] for piece in pieces]) * masses / ase.units.fs**2
    to_deviation = 1.0 / np.sqrt(12.0)
    of_position = to_deviation * spacing(positions, list(UNITS["positions"].values()))
    of_force = to_deviation * spacing(forces, list(UNITS["forces"].values()))
    if reader.recovered_velocities:
        of_velocity = np.full(len(masses), of_position / (np.sqrt(2.0) * reader.step_fs))
        first = of_velocity * (2.0 if _of_one_side(reader) else 1.0)
    else:
        units = list(UNITS["velocities"].values())
        of_momentum = spacing(velocities * masses, units) / masses[:, 0]
        of_velocity = to_deviation * (spacing(velocities, units) or of_momentum) * np.ones(len(masses))
        first = of_velocity
    of_acceleration = of_force * ase.units.fs**2 / masses[:, 0]
    return Rounding(of_position, of_velocity[atoms], of_acceleration[atoms], first[atoms])


def _of_one_side(reader: PieceReader) -> bool:
    """Whether the velocities of the first frame were made of the first two frames (`recover_velocities`)."""
    piece, step = reader.read(0, 2), reader.step_fs
    now, after = piece.accelerations
    curvature = 0.5 * now + (1.0 - 1.0 / reader.inner_steps**2) / 6.0 * (after - now)
    left = piece.moved[0] - step * piece.velocities[0] - step**2 * curvature
    return bool(np.median(np.abs(left)) < 1e-9)


def spacing(values: np.ndarray, units: list[float]) -> float:
    """Spacing of the coarsest decimal grid, in one of these units, that most numbers are on; 0 if there is none."""
    numbers = values[values != 0.0].reshape(-1)
    if len(numbers) < _FEW:
        return 0.0
    for decimals in _DECIMALS:
        for unit in units:
            scaled = numbers / unit * 10.0**decimals
            on = np.abs(scaled - np.round(scaled)) < _ON
            if np.median(np.abs(scaled)) > 1.0 and on.mean() > _MOST:
                return unit * 10.0**-decimals
    single = numbers.astype(np.float32)
    if np.all(single == numbers):
        return float(np.spacing(np.abs(single).max()))
    return 0.0
