r"""What changes velocities beside the forces: thermostats, constraints, other masses, noise.

The residual of velocity Verlet (`spk_dt.trajectories.verlet_residual`) from each frame to the next,
:math:`\Delta x_k, \Delta v_k`, is what a rollout with the true forces would miss. Left to itself over a time t of W steps
it displaces the atoms by

.. math:: D_k = \sum_{j=k}^{k+W-1} \Bigl[ \Delta x_j + T \sum_{i=k}^{j-1} \Delta v_i \Bigr], \qquad
          r_Z = \sqrt{\langle m D^2 \rangle_Z / \langle m (x_{k+W} - x_k)^2 \rangle}

of which r says how much it is compared with the motion of all atoms. For Langevin dynamics of friction :math:`\gamma`
:math:`r \approx \sqrt{2 \gamma t / 3}`, for a Nosé-Hoover thermostat :math:`\Delta v = -\zeta T v` and
:math:`r \approx \zeta t / 2`. Which it is shows in how kicks add up over L steps: random ones as L, those of a thermostat
that scales all velocities as L² and along v, noise of the numbers not at all. Then

.. math:: \gamma = \frac{\langle m\,|\sum_{L} \Delta v|^2 \rangle}{6\,k_B \Theta\,L\,T}, \qquad
          \zeta_\mathrm{rms}^2 = \Bigl\langle \Bigl( \frac{\langle \Delta v, v \rangle_m}{T \langle v, v \rangle_m} \Bigr)^2
          \Bigr\rangle .

With steps of the simulation between frames the residual also holds an error of the quadrature; what the second
differences of the forces say of it, :math:`\tfrac{T}{12} (1 - 1/n^2)\,\delta^2 a` of the velocities, is taken away, and its
size is the floor below which nothing is concluded.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import ase.units
import numpy as np

from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.diagnosis.rounding import measure_rounding
from spk_dt.trajectories.diagnosis.survey import Survey
from spk_dt.trajectories.verlet_residual import verlet_residual

__all__ = ["WINDOW_FS", "Residual", "measure_residual"]

#: time over which the residual is left to itself, fs
WINDOW_FS = 20.0
#: multiple of what rounding displaces atoms by on average, below which it explains what is seen
_ROUNDED = 2.0
#: steps over which kicks are added up
_SUMMED = 10


@dataclass(frozen=True)
class Residual:
    """Residual of velocity Verlet, over the atoms asked for.

    Args:
        window_fs: time over which displacements are counted.
        displaced: r of each element, by atomic number.
        floor: r of each element of the error of the quadrature that was taken away.
        rounded: r of each element that the digits of the numbers explain.
        position: RMS of the residual of a position, Å.
        velocity: RMS of the residual of a velocity, Å/fs.
        force: RMS of the force that would make it, eV/Å.
        relative: the residual of velocities over the RMS of what forces change velocities by in a step.
        along_velocity: part of the squared kicks that scales all velocities of a frame alike.
        scaling_per_ps: RMS rate at which it does, 1/ps.
        growth: mean squared sum of L kicks over that of one; None if there are too few steps to say.
        summed: L.
        friction_per_ps: friction of a Langevin thermostat with such kicks, 1/ps; None with `growth`.
        work_mev_per_atom_per_ps: energy that the kicks add.
        of_step: [n_frames - 1] squared kick of each step, Dalton Å²/fs².
        thermal: mean squared velocities, the same unit.
    """

    window_fs: float
    displaced: dict[int, float]
    floor: dict[int, float]
    rounded: dict[int, float]
    position: float
    velocity: float
    force: float
    relative: float
    along_velocity: float
    scaling_per_ps: float
    growth: float | None
    summed: int
    friction_per_ps: float | None
    work_mev_per_atom_per_ps: float
    of_step: np.ndarray
    thermal: float

    @property
    def shift_explains_more(self) -> bool:
        """Whether residuals of positions displace atoms by far more than random kicks of their size would."""
        friction = self.friction_per_ps or 0.0
        return np.sqrt(2e-3 * friction * self.window_fs / 3.0) < 0.1 * self.worst

    @property
    def worst(self) -> float:
        """Largest r of an element, of those above what the quadrature and rounding explain."""
        return max((r for z, r in self.displaced.items() if r > self.explained[z]), default=0.0)

    @property
    def explained(self) -> dict[int, float]:
        """R of each element below which nothing is concluded."""
        return {z: max(floor, _ROUNDED * self.rounded[z]) for z, floor in self.floor.items()}


def measure_residual(reader: PieceReader, survey: Survey, strange: np.ndarray, atoms: np.ndarray) -> Residual:
    """Measure what is left of every step.

    Args:
        reader: the trajectory.
        survey: what `survey` found.
        strange: [n_frames - 1] steps to leave out.
        atoms: indices of the atoms that count.
    """
    n_steps, masses = len(reader) - 1, reader.masses[atoms][:, None]
    window = min(max(round(WINDOW_FS / reader.step_fs), 1), n_steps)
    summed = min(_SUMMED, n_steps // 3)
    numbers = reader.numbers[atoms]
    elements = [int(z) for z in np.unique(numbers)]
    off, floor, motion = np.zeros(len(elements)), np.zeros(len(elements)), 0.0
    digits = measure_rounding(reader, atoms)
    noise = float(6.0 * np.sum(masses[:, 0] * digits.velocity**2))  # of one kick, and of the sum of any number
    n_starts = 0
    squares = np.zeros(5)  # of residuals of positions, velocities, momenta; of force contributions; of velocities
    along, scaling, work, sums, n_sums = 0.0, 0.0, 0.0, 0.0, 0
    of_step = np.zeros(n_steps)
    for piece in _pieces(reader, strange, atoms, window):
        kick, own = piece.kick, piece.own
        weighted = masses * kick[own]
        of_step[piece.first : piece.first + len(weighted)] = np.einsum("kix,kix->k", weighted, kick[own])
        speed = piece.velocities[own]
        overlap = np.einsum("kix,kix->k", weighted, speed)
        size = np.einsum("kix,kix->k", masses * speed, speed)
        work += overlap.sum() / ase.units.fs**2  # eV
        moving = size > 0.0
        along += np.sum(overlap[moving] ** 2 / size[moving])
        scaling += np.sum((overlap[moving] / size[moving]) ** 2)
        parts = (piece.shift[own], kick[own], weighted, piece.pushed[own])
        squares += [*(np.sum(part**2) for part in parts), size.sum()]

        total = np.concatenate([np.zeros((1, *kick.shape[1:])), np.cumsum(kick, axis=0)])
        starts = np.arange(own.start, own.stop)
        if summed > 1:
            ends = starts[starts + summed < len(total)]
            sums += np.sum(masses * (total[ends + summed] - total[ends]) ** 2)
            n_sums += len(ends)
        starts = starts[starts + window < len(total)]
        n_starts += len(starts)
        displaced = masses * _left_to_itself(reader.step_fs, piece.shift, kick, total, starts, window) ** 2
        off += [displaced[:, numbers == z].sum() for z in elements]
        path = np.concatenate([np.zeros((1, *kick.shape[1:])), np.cumsum(piece.moved, axis=0)])
        travelled = path[starts + window] - path[starts]
        travelled -= np.sum(masses * travelled, axis=1, keepdims=True) / masses.sum() if len(atoms) > 1 else 0.0
        motion += np.sum(masses * travelled**2)
        if piece.correction is not None:
            total = np.concatenate([np.zeros((1, *kick.shape[1:])), np.cumsum(piece.correction, axis=0)])
            shift = 0.5 * reader.step_fs * piece.correction
            displaced = masses * _left_to_itself(reader.step_fs, shift, piece.correction, total, starts, window) ** 2
            floor += [displaced[:, numbers == z].sum() for z in elements]

    count = np.array([np.sum(numbers == z) for z in elements])
    per_atom = max(motion / len(atoms), 1e-300)
    ratios = np.sqrt(off / count / per_atom)
    kinetic = 2.0 * survey.kinetic.mean() / survey.degrees_of_freedom  # k_B Theta, eV
    growth = friction = None
    noise *= np.sum(~strange)
    along, squared = along - noise / (3 * len(atoms)), of_step.sum() - noise
    one = squared / max(np.sum(~strange), 1)
    if summed >= 4 and n_sums and one > 0.0:
        many = max(sums / n_sums - noise / max(np.sum(~strange), 1), 0.0)
        growth = float(many / one)
        if kinetic > 0.0:
            energy = many / ase.units.fs**2 / (survey.mobile[atoms].sum() / 3.0)
            friction = float(1e3 * energy / (6.0 * kinetic * summed * reader.step_fs))
    by_rounding = masses[:, 0] * digits.displaced(window, reader.step_fs, n_starts)
    rounded = np.array([by_rounding[numbers == z].sum() for z in elements])
    n_values = 3 * len(atoms) * n_steps
    return Residual(
        window_fs=window * reader.step_fs,
        displaced=dict(zip(elements, ratios.tolist(), strict=True)),
        floor=dict(zip(elements, np.sqrt(floor / count / per_atom).tolist(), strict=True)),
        rounded=dict(zip(elements, np.sqrt(n_starts * rounded / count / per_atom).tolist(), strict=True)),
        position=float(np.sqrt(squares[0] / n_values)),
        velocity=float(np.sqrt(squares[1] / n_values)),
        force=float(np.sqrt(squares[2] / (len(atoms) * n_steps)) / reader.step_fs / ase.units.fs**2),
        relative=float(np.sqrt(squares[1] / squares[3])) if squares[3] > 0.0 else 0.0,
        along_velocity=float(along / squared) if squared > 0.2 * noise and squared > 0.0 else 0.0,
        scaling_per_ps=float(1e3 * np.sqrt(scaling / n_steps) / reader.step_fs),
        growth=growth,
        summed=summed,
        friction_per_ps=friction,
        work_mev_per_atom_per_ps=float(1e6 * work / (n_steps * reader.step_fs * survey.degrees_of_freedom / 3.0)),
        of_step=of_step,
        thermal=float(squares[4] / n_steps),
    )


@dataclass(frozen=True)
class _Residuals:
    """Residuals of consecutive steps; `own` are those to count, the others complete their windows.

    Args:
        first: first step of `own`.
        own: which.
        shift: [n_steps, n_atoms, 3] Å, of positions.
        kick: of velocities, Å/fs.
        correction: what was taken from `kick` as error of the quadrature; None without steps between frames.
        pushed: what forces change velocities by, Å/fs.
        velocities: mean of both frames, Å/fs.
        moved: Å.
    """

    first: int
    own: slice
    shift: np.ndarray
    kick: np.ndarray
    correction: np.ndarray | None
    pushed: np.ndarray
    velocities: np.ndarray
    moved: np.ndarray


def _pieces(reader: PieceReader, strange: np.ndarray, atoms: np.ndarray, window: int) -> Iterator[_Residuals]:
    """Residuals of all steps, each with the window that follows it; those of strange steps are zero."""
    n_steps, step, n = len(reader) - 1, reader.step_fs, reader.inner_steps
    for first, last in reader.ranges(0, n_steps):
        low, high = max(first - 1, 0), min(last + window + 1, n_steps)
        piece = reader.read(low, high + 1)
        velocities, accelerations = piece.velocities[:, atoms], piece.accelerations[:, atoms]
        shift, kick = verlet_residual(
            piece.positions[:, atoms],
            velocities,
            accelerations,
            np.ones(len(atoms)),
            step,
            reader.cell,
            reader.pbc,
            n,
        )
        correction = None
        if n > 1:
            bend = accelerations[2:] - 2.0 * accelerations[1:-1] + accelerations[:-2]
            bend = np.concatenate([bend[:1], bend, bend[-1:]])
            correction = step * (1.0 - 1.0 / n**2) / 24.0 * (bend[:-1] + bend[1:])
            kick, shift = kick + correction, shift + 0.5 * step * correction
        off = strange[low:high]
        kick[off], shift[off] = 0.0, 0.0
        yield _Residuals(
            first=first,
            own=slice(first - low, last - low),
            shift=shift,
            kick=kick,
            correction=correction,
            pushed=0.5 * step * (accelerations[:-1] + accelerations[1:]),
            velocities=0.5 * (velocities[:-1] + velocities[1:]),
            moved=piece.moved[:, atoms],
        )


def _left_to_itself(
    step: float, shift: np.ndarray, kick: np.ndarray, total: np.ndarray, starts: np.ndarray, window: int
) -> np.ndarray:
    """Displacements D after a window of steps: [n_starts, n_atoms, 3] Å."""
    place = np.concatenate([np.zeros((1, *kick.shape[1:])), np.cumsum(shift + step * total[:-1], axis=0)])
    return place[starts + window] - place[starts] - window * step * total[starts]
