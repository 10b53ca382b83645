"""What errors are measured by: thermal energies and forces of the data that simulations start from."""

from spk_dt.certificate.criteria import Scales, scales_of
from spk_dt.data.continuation import spread_continuations
from spk_dt.data.partition import Partition

__all__ = ["scales_of_data"]

#: frames of each trajectory
_FRAMES = 10


def scales_of_data(partition: Partition, at_least: int = 1) -> Scales:
    """Temperature and thermal forces of a partition, of frames evenly spaced over each of its trajectories.

    Not of start frames alone: the first frame of a trajectory is often relaxed in part, with hardly any force on an element.

    Args:
        partition: of a trajectory database.
        at_least: frames of each trajectory, if these are more.

    Raises:
        ValueError: see `spk_dt.certificate.criteria.scales_of`.
    """
    several = min(max(_FRAMES, at_least), *(len(part.frames) for part in partition.parts))
    return scales_of([one.start for one in spread_continuations(partition, None, several, steps=0)])
