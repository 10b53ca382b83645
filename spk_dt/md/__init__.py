"""What `spkmd` needs: start from the velocities of a trajectory."""

from spk_dt.md.initial_conditions import FramesInit

__all__ = ["FramesInit"]
