"""Under which conditions a potential is certified: ensemble, temperature, time."""

from dataclasses import dataclass
from math import ceil, inf

__all__ = ["Conditions"]


@dataclass(frozen=True)
class Conditions:
    """Conditions of the simulations of a certificate.

    Args:
        time_ps: length of each simulation, ps.
        n_states: states of each simulation that are kept, evenly spaced; failures are found to this resolution.
        temperature: of a Langevin thermostat, K; None simulates at constant energy.
        end_temperature: the thermostat is heated linearly to this temperature, K, in `n_states` steps; None keeps it.
        friction: of the thermostat, 1/fs.
        time_step: time step, fs; None takes that of the data.
        seed: of the random forces.

    Raises:
        ValueError: if a value makes no sense, or a ramp has no temperature to begin at.
    """

    time_ps: float = 100.0
    n_states: int = 100
    temperature: float | None = None
    end_temperature: float | None = None
    friction: float = 0.01
    time_step: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        for name in ("time_ps", "n_states", "temperature", "end_temperature", "friction", "time_step"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < inf:
                raise ValueError(f"{name}={value} must be a positive number.")
        if self.end_temperature is not None and self.temperature is None:
            raise ValueError(
                f"end_temperature={self.end_temperature} K needs the temperature at which the ramp begins."
            )

    def thermostat(self, interval: int) -> float | None:
        """Temperature of the thermostat between the states `interval` and `interval` + 1, K; None without one.

        In a ramp the last interval is at `end_temperature`, and the first at `temperature`.
        """
        if self.temperature is None or self.end_temperature is None or self.n_states == 1:
            return self.temperature
        return self.temperature + (self.end_temperature - self.temperature) * interval / (self.n_states - 1)

    def steps(self, timestep_fs: float) -> int:
        """Steps from one state to the next: as few as reach `time_ps`.

        Args:
            timestep_fs: time step of the data, fs, taken where `time_step` is None.

        Raises:
            ValueError: if states would be closer than a time step.
        """
        step = timestep_fs if self.time_step is None else self.time_step
        n_steps = round(1000.0 * self.time_ps / self.n_states / step, 6)
        if n_steps < 1.0:
            raise ValueError(
                f"{self.n_states} states in {self.time_ps:g} ps are closer than the time step of {step:g} fs: ask for fewer "
                "states, or for a longer time."
            )
        return ceil(n_steps)

    def thermostat_before(self, state: int) -> float | None:
        """Temperature of the thermostat on the way to a state, K; None without one.

        Args:
            state: number of the state; 0 is the start.
        """
        return self.thermostat(max(0, state - 1))

    @property
    def described(self) -> str:
        """In words, for titles and statements."""
        if self.temperature is None:
            return "at constant energy"
        if self.end_temperature is None:
            return f"at {self.temperature:g} K (Langevin thermostat)"
        moved = "heated" if self.end_temperature > self.temperature else "cooled"
        return f"while {moved} from {self.temperature:g} to {self.end_temperature:g} K (Langevin thermostat)"
