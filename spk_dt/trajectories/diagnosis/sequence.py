r"""Do the frames follow each other? Steps at which atoms move by what their velocities do not explain, and why.

The step expected from frame k to the next is the mean of the velocities of both, or, where velocities are central
differences of the positions, the mean of the steps before and after,

.. math:: p_k = \tfrac12 T \beta (v_k + v_{k+1}) \quad \text{or} \quad p_k = \tfrac12 (\Delta x_{k-1} + \Delta x_{k+1}).

A step is strange if :math:`\lVert \Delta x_k - p_k \rVert` exceeds half of the expected length (a missing frame adds the
whole of it), or if one atom alone misses by six times its share, with either velocity. The ratio of :math:`\Delta x_k` to
:math:`p_k` then tells how many frames lie between: 0 for a frame that is there twice, 2 where one is missing, -1 for a step
back. Steps at which some atoms get another velocity and go on with it are not strange: thermostats do that.
"""

from dataclasses import dataclass

import numpy as np

from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.diagnosis.rounding import measure_rounding
from spk_dt.trajectories.diagnosis.survey import Survey
from spk_dt.trajectories.moves import shortest

__all__ = ["MOSTLY_STRANGE", "Event", "Sequence", "find_events"]

#: above this part of strange steps, the frames are no sequence at all
MOSTLY_STRANGE = 0.3

#: a step is strange if it misses the expected one by this part of it
_MISS = 0.5
#: or one atom misses by so many times the RMS of what atoms move in a step
_MISS_OF_ONE = 6.0
#: and by more than this multiple of what rounding makes of it
_ROUNDED = 2.0
#: velocities predict the steps if they explain this part of the central differences
_EXPLAINED = 0.5
#: a step is none if it is shorter than this part of the others
_STILL = 1e-3
#: strange steps that are looked at one by one
_LOOKED_AT = 100


@dataclass(frozen=True)
class Event:
    """A strange step, or a strange frame between two of them.

    Args:
        kind: "duplicated_frames", "dropped_frames", "out_of_order", "glued_runs", "restarted", "jump" or
            "corrupted_frame".
        frame: the frame before the step, or the corrupted frame.
        number: of frames missing, or of duplicated ones.
        atom: the atom that jumps, if it is one.
        distance: by how much it does, Å.
        lattice: whether that is a lattice vector.
        what: which values of a corrupted frame are wrong.
    """

    kind: str
    frame: int
    number: int = 1
    atom: int | None = None
    distance: float = 0.0
    lattice: bool = False
    what: str = ""


@dataclass(frozen=True)
class Sequence:
    """How frames follow each other.

    Args:
        events: the first of them, in order.
        strange: [n_frames - 1] steps that do not lead from one frame to the next.
        predicted: part of the squared steps that is predicted, median over the steps.
        from_velocities: whether the velocities predict them; otherwise positions of neighbouring frames do.
    """

    events: list[Event]
    strange: np.ndarray
    predicted: float
    from_velocities: bool

    @property
    def strange_part(self) -> float:
        """Part of the steps that are strange."""
        return float(self.strange.mean())


def find_events(reader: PieceReader, survey: Survey) -> Sequence:
    """Look for steps that do not lead from one frame to the next."""
    found = _find_events(reader, survey, not reader.recovered_velocities and survey.explained > _EXPLAINED)
    if found.from_velocities and found.strange_part > MOSTLY_STRANGE:
        alone = _find_events(reader, survey, False)  # the positions follow each other, and the velocities are others
        return alone if alone.strange_part <= MOSTLY_STRANGE and alone.predicted > _EXPLAINED else found
    return found


def _find_events(reader: PieceReader, survey: Survey, from_velocities: bool) -> Sequence:
    """Steps that differ from those predicted by velocities, or else by the positions of neighbouring frames."""
    n_steps = len(reader) - 1
    scale = survey.scale[np.searchsorted(survey.elements, reader.numbers)] if from_velocities else None
    missed, expected, product, length, largest = np.zeros((5, n_steps))
    worst = np.zeros(n_steps, dtype=int)
    atoms = np.flatnonzero(survey.followed)
    masses = reader.masses[atoms]
    for first, last in reader.ranges(0, n_steps):
        moved, predicted, bend = (part[:, atoms] for part in _steps(reader, first, last, scale))
        off = moved - predicted
        own = slice(first, last)
        missed[own] = np.sqrt(np.einsum("i,kix,kix->k", masses, off, off))
        of_atom = masses * np.min([np.sum((off + part) ** 2, axis=2) for part in (0.0 * bend, bend, -bend)], axis=0)
        largest[own] = np.sqrt(of_atom.max(axis=1))
        worst[own] = atoms[of_atom.argmax(axis=1)]
        expected[own] = np.sqrt(np.einsum("i,kix,kix->k", masses, predicted, predicted))
        length[own] = np.sqrt(np.einsum("i,kix,kix->k", masses, moved, moved))
        product[own] = np.einsum("i,kix,kix->k", masses, moved, predicted)
    typical = float(np.median(length))
    digits = measure_rounding(reader, atoms)
    of_velocity = 0.5 * (reader.step_fs * digits.velocity) ** 2 if from_velocities else np.zeros(len(atoms))
    rounded = masses * ((2.0 if from_velocities else 5.0) * digits.position**2 + of_velocity)
    strange = missed > np.maximum(_MISS * np.maximum(expected, 0.3 * typical), _ROUNDED * np.sqrt(3.0 * rounded.sum()))
    strange |= largest > max(_MISS_OF_ONE * typical / np.sqrt(len(atoms)), _MISS_OF_ONE * np.sqrt(rounded.max()))
    neighbour = np.maximum(np.append(missed[1:], 0.0), np.append(0.0, missed[:-1]))
    if not from_velocities:
        strange &= missed > 0.6 * neighbour  # else the echo of a strange step in the prediction of the next
        strange[[0, -1]] = length[[0, -1]] < _STILL * typical  # there is a step on one side only
    predicted_part = 1.0 - float(np.median(missed**2)) / typical**2 if typical > 0.0 else 0.0
    events: list[Event] = []
    if strange.mean() <= MOSTLY_STRANGE:
        steps = np.flatnonzero(strange)[:_LOOKED_AT].tolist()
        if not from_velocities:
            product[steps], expected[steps] = _along_good_steps(reader, steps, strange)
        ratio = product / np.maximum(expected**2, 1e-12 * typical**2)
        missed_beyond = np.sqrt(np.maximum(length**2 - ratio**2 * expected**2, 0.0))
        alone = np.where(largest**2 > 0.8 * missed**2, worst, -1)
        classify = _Classifier(reader, scale, length, ratio, missed_beyond, alone, typical)
        kicked = [step for step in steps if classify.kicks_some_atoms(step)]
        strange[kicked] = False
        events = classify([step for step in steps if strange[step]])
    return Sequence(events, strange, predicted_part, from_velocities)


def _steps(
    reader: PieceReader, first: int, last: int, scale: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps `first` to `last` as they are, as they are expected, and by how much either velocity alone differs.

    Returns:
        [n_steps, n_atoms, 3] Å each; the last is zero without velocities.
    """
    if scale is not None:
        piece = reader.read(first, last + 1)
        ahead = reader.step_fs * scale[:, None] * piece.velocities
        return piece.moved, 0.5 * (ahead[:-1] + ahead[1:]), 0.5 * (ahead[1:] - ahead[:-1])
    n_steps = len(reader) - 1
    low, high = max(first - 1, 0), min(last + 1, n_steps)
    moved = reader.read(low, high + 1).moved
    steps = np.arange(first, last)
    before = np.where(steps > 0, steps - 1, min(1, n_steps - 1)) - low
    after = np.where(steps < n_steps - 1, steps + 1, max(n_steps - 2, 0)) - low
    expected = 0.5 * (moved[before] + moved[after])
    return moved[steps - low], expected, np.zeros_like(expected)


def _along_good_steps(reader: PieceReader, steps: list[int], strange: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Product of steps with the mean of the next good steps before and after, and the length of that: [n_steps] each."""
    good = np.flatnonzero(~strange)
    products, lengths = [], []
    for step in steps:
        place = int(np.searchsorted(good, step))
        near = good[max(place - 1, 0) : place + 1].tolist()
        mean = np.mean([reader.read(one, one + 2).moved[0] for one in near], axis=0)
        moved = reader.read(step, step + 2).moved[0]
        products.append(np.einsum("i,ix,ix->", reader.masses, moved, mean))
        lengths.append(np.sqrt(np.einsum("i,ix,ix->", reader.masses, mean, mean)))
    return np.array(products), np.array(lengths)


@dataclass(frozen=True)
class _Classifier:
    """Says what happens at strange steps.

    Args:
        reader: the trajectory.
        scale: [n_atoms] of the velocities; None if steps are predicted from positions.
        length: [n_steps] mass-weighted length of each step.
        ratio: [n_steps] of a step to the expected one, along the latter.
        missed_beyond: [n_steps] length of what is across.
        alone: [n_steps] atom that misses alone; -1 if it is not one.
        typical: median of `length`.
    """

    reader: PieceReader
    scale: np.ndarray | None
    length: np.ndarray
    ratio: np.ndarray
    missed_beyond: np.ndarray
    alone: np.ndarray
    typical: float

    def __call__(self, steps: list[int]) -> list[Event]:
        """What happens at these steps, in order; a strange frame makes two of them."""
        events: list[Event] = []
        strange, done = set(steps), set()
        for step in steps:
            if step in done:
                continue
            event = self._of_frame(step) if step + 1 in strange else None
            if event is None:
                event = self._of_step(step)
            else:
                done.add(step + 1)
            events.append(event)
        back = [event.frame for event in events if event.kind == "out_of_order"]
        # a frame in the wrong place is missing where it belongs, and fits neither neighbour where it is
        echoes = ("dropped_frames", "corrupted_frame")
        return [e for e in events if e.kind not in echoes or all(abs(e.frame - frame) > 20 for frame in back)]

    def kicks_some_atoms(self, step: int) -> bool:
        """Whether it is only that less than half of the atoms get another velocity."""
        if self.scale is None or self._velocity_that_leads(step) is None:
            return False
        off = np.sqrt(self.reader.masses * np.sum(self._off(step) ** 2, axis=1))
        return np.mean(off > 0.1 * self.typical / np.sqrt(len(off))) < 0.5

    def _of_frame(self, step: int) -> Event | None:
        """The frame after this step, if it is wrong and those around it follow each other."""
        atom = int(self.alone[step])
        if atom >= 0:
            vector = self._off(step)[atom]
            if self.alone[step + 1] == atom and np.linalg.norm(
                vector + self._off(step + 1)[atom]
            ) < 0.5 * np.linalg.norm(vector):
                return Event("corrupted_frame", step + 1, 1, atom, float(np.linalg.norm(vector)), what="positions")
            return None
        if step >= 1 and step + 3 < len(self.reader):
            moved = self.reader.read(step - 1, step + 4).moved
            bend = 0.3 * self._size(moved[2] - moved[1])
            if self._size(moved[1] - moved[0]) < bend and self._size(moved[3] - moved[2]) < bend:
                return Event("restarted", step + 1)
            around = moved[0] + moved[3]
            if self._size(moved[1] + moved[2] - around) < _MISS * self._size(around):
                both = self._velocity_that_leads(step) == 0 and self._velocity_that_leads(step + 1) == 1
                return Event("corrupted_frame", step + 1, what="velocities" if both else "positions")
        return None

    def _of_step(self, step: int) -> Event:
        """What happens between two frames."""
        between = round(float(self.ratio[step]))
        if self.length[step] < _STILL * self.typical:
            return Event("duplicated_frames", step)
        if self.alone[step] >= 0:
            atom = int(self.alone[step])
            vector = self._off(step)[atom]
            return Event("jump", step, 1, atom, float(np.linalg.norm(vector)), self._is_lattice_vector(vector))
        leads = self._velocity_that_leads(step)
        if leads == 1 and step == 0:
            return Event("corrupted_frame", 0, what="velocities")
        if leads is not None:
            return Event("restarted", step)
        straight = self.missed_beyond[step] < _MISS * self.length[step]
        if straight and between >= 2:
            return Event("dropped_frames", step, between - 1)
        if straight and between <= -1:
            return Event("out_of_order", step)
        return Event("glued_runs", step)

    def _velocity_that_leads(self, step: int) -> int | None:
        """0 if the velocities of the frame before lead along the step, 1 if only those of the frame after do."""
        if self.scale is None:
            return None
        piece = self.reader.read(step, step + 2)
        for which, sign in ((0, 0.5), (1, -0.5)):
            expected = self.reader.step_fs * self.scale[:, None] * piece.velocities[which]
            expected = expected + sign * self.reader.step_fs**2 * piece.accelerations[which]
            if self._size(piece.moved[0] - expected) < 0.3 * self.length[step]:
                return which
        return None

    def _off(self, step: int) -> np.ndarray:
        """[n_atoms, 3] Å by which a step misses the expected one."""
        moved, expected, _ = _steps(self.reader, step, step + 1, self.scale)
        return moved[0] - expected[0]

    def _is_lattice_vector(self, vector: np.ndarray) -> bool:
        """Whether a vector is a whole sum of lattice vectors, of a cell that is not said to be periodic."""
        cell = self.reader.cell[np.abs(self.reader.cell).max(axis=1) > 0.0]
        rest = shortest(vector, cell, np.ones(len(cell), dtype=bool)) if len(cell) else vector
        return bool(np.linalg.norm(rest) < 0.1 * np.linalg.norm(vector))

    def _size(self, moved: np.ndarray) -> float:
        return float(np.sqrt(np.einsum("i,ix,ix->", self.reader.masses, moved, moved)))
