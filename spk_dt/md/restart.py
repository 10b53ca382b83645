"""Files of `spkmd` from which a run can be continued, however it has ended: finished, Ctrl-C, killed, out of memory.

With SchNetPack's own hooks a checkpoint of the middle of a run counts one step less than were made, the trajectory file ends
elsewhere than the checkpoint, and HDF5 refuses a file whose writer was killed. Here the files never lag behind the
checkpoint, and on restart they are cut back to it: they become those of a run that was not interrupted.

What is the same again: the steps, and the states within rounding, which differs as neighbour lists are made anew (chaos
magnifies it, soon so with ``precision=32``). With a random thermostat this needs the same ``simulation_dir`` and device. Not
the same: numbers drawn by NumPy or Python, hooks other than thermostats and barostats (SchNetPack restores no others), and
TensorBoard, where the steps between the checkpoint and the end appear twice.
"""

import io
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import torch
from schnetpack import units as spk_units
from schnetpack.md import Simulator
from schnetpack.md.simulation_hooks import callback_hooks

from spk_dt.folders.damage import reading
from spk_dt.folders.whole_file import whole_file

__all__ = ["Checkpoint", "FileLogger", "release"]

log = logging.getLogger(__name__)


class Checkpoint(callback_hooks.Checkpoint):
    """`schnetpack.md.simulation_hooks.Checkpoint` that counts the steps really made and agrees with the other files.

    The state is taken at the end of a step, but written once all other hooks have done that step too and every
    `FileLogger` has written its buffer. The file is replaced in one go, so that there is a whole one at any time.

    It also holds the state of torch's random numbers on the device of the run. A run that is continued in its own folder
    goes on with them; in another folder they follow ``seed``, so that several runs may branch off one checkpoint.

    Args:
        checkpoint_file: file to write.
        every_n_steps: write after every so many steps, and at the end.
    """

    def __init__(self, checkpoint_file: str, every_n_steps: int) -> None:
        super().__init__(checkpoint_file, every_n_steps)
        self._taken: bytes | None = None

    def on_simulation_start(self, simulator: Simulator) -> None:
        """Go on with the random numbers of the checkpoint, if it is the one that is continued."""
        if not (simulator.restart and Path(self.checkpoint_file).is_file()):
            return
        state = read_state(self.checkpoint_file)
        if "random" not in state:
            log.warning(
                f"'{self.checkpoint_file}' was written by SchNetPack's own hook: random numbers start anew, and if that run "
                f"was interrupted, it had made {state['step'] + 1} steps, not {state['step']}."
            )
        elif state["step"] == simulator.step:
            _random_numbers(simulator).set_rng_state(state["random"])

    def on_step_finalize(self, simulator: Simulator) -> None:
        """Take the state after a step."""
        steps = simulator.step + 1  # the simulator counts after its hooks
        if steps % self.every_n_steps == 0:
            self._taken = _state(simulator, steps)

    def on_step_begin(self, simulator: Simulator) -> None:
        """Write the state that was taken; by now all hooks have done that step."""
        if self._taken is not None:
            self._write(simulator, self._taken)

    def on_simulation_end(self, simulator: Simulator) -> None:
        """Write the last state."""
        self._write(simulator, _state(simulator, simulator.step))

    def _write(self, simulator: Simulator, state: bytes) -> None:
        """Replace the file, after the files that must not lag behind it."""
        for hook in simulator.simulator_hooks:
            if isinstance(hook, FileLogger):
                hook.flush()
        with whole_file(self.checkpoint_file) as part:
            part.write_bytes(state)
        self._taken = None


class FileLogger(callback_hooks.FileLogger):
    """`schnetpack.md.simulation_hooks.FileLogger` whose file goes on where the checkpoint is when a run is restarted.

    Entries beyond the checkpoint are dropped, since the run makes them again. Use it with `Checkpoint` and with
    `spk_dt.md.MoleculeStream`, which notes at what step the file begins. The arguments are SchNetPack's.

    Raises:
        ValueError: on restart, if entries up to the checkpoint are missing, or if those in the file are further apart or
            closer together than those to come.
    """

    def on_simulation_start(self, simulator: Simulator) -> None:
        """Cut the file back to the checkpoint, if there is one, and open it."""
        if simulator.restart and Path(self.filename).exists():
            release(self.filename)
            self._cut(simulator)
        super().on_simulation_start(simulator)

    def flush(self) -> None:
        """Write what is in the buffer."""
        if self.buffer_position > 0:
            self._write_buffer()

    def _write_buffer(self) -> None:
        """Write the buffer, whether it is full or not."""
        written = self.buffer_position
        super()._write_buffer()
        self.file_position += written - self.buffer_size  # SchNetPack counts a full one

    def _cut(self, simulator: Simulator) -> None:
        """Drop the entries of steps that are going to be made again."""
        time_step = simulator.integrator.time_step * self.every_n_steps
        with h5py.File(self.filename, "r+", libver="latest") as file:
            written = file["molecules"].attrs
            apart, every = float(written["time_step"]), int(written["every_n_steps"])
            if every != self.every_n_steps or abs(apart - time_step) > 1e-6 * apart:
                raise ValueError(
                    f"the entries of '{self.filename}' are {every} steps and {apart / spk_units.fs:g} fs apart, those of "
                    f"this restart would be {self.every_n_steps} steps and {time_step / spk_units.fs:g} fs. Restart with "
                    "the settings of the run, or into another simulation_dir."
                )
            # an entry is the state after the step that the simulator counts as 0, every, 2 every, ...
            start = int(written.get("start_step", 0))
            entries = -(-simulator.step // every) + (-start // every)
            for stream in self.data_steams:
                there = int(file[stream.group_name].attrs["entries"])
                if there < entries:
                    raise ValueError(
                        f"'{self.filename}' has {there} entries of '{stream.group_name}', but {entries} belong to the "
                        f"{simulator.step - start} steps up to the checkpoint. Restart into another simulation_dir; the "
                        "steps between cannot be had back."
                    )
                file[stream.group_name].attrs.modify("entries", entries)


def read_state(file: str | Path) -> dict[str, Any]:
    """The state of a run, as `Checkpoint` writes it; this runs what is in the file.

    Raises:
        ValueError: if it is damaged, or of something else.
    """
    with reading(file, "checkpoint of spkmd", "Restart from another one, or simulate anew."):
        state = torch.load(file, map_location="cpu", weights_only=False)
        if not isinstance(state, dict) or not isinstance(state.get("step"), int):
            raise ValueError("it does not say its step")
        return state


def release(path: str | Path) -> None:
    """Make an HDF5 file usable again whose writer was killed.

    Such a file stays marked as being written. It still opens as readers of a running simulation open it, so its content goes
    to a new file that takes its place. A run that is still alive looks just the same; `spk_dt.md.OutputFolder` refuses it.

    Args:
        path: the file; left as it is if it can be opened for writing.

    Raises:
        OSError: if it is open in another program, or damaged.
    """
    try:
        h5py.File(path, "r+").close()
        return
    except BlockingIOError as error:
        raise OSError(f"'{path}' is open in another program; close it there, then restart.") from error
    except OSError:
        log.warning(f"The run that wrote '{path}' did not end properly; what it has written is kept.")
    try:
        with (
            whole_file(path) as part,
            h5py.File(path, "r", libver="latest", swmr=True) as old,
            h5py.File(part, "w", libver="latest") as new,
        ):
            for name in old:
                old.copy(name, new)
            for name, value in old.attrs.items():
                new.attrs[name] = value
    except (OSError, RuntimeError, KeyError) as error:  # h5py has one for each depth of the damage
        raise OSError(f"'{path}' cannot be read ({error}); restart into another simulation_dir.") from error


def _state(simulator: Simulator, steps: int) -> bytes:
    """The state of a run as a file, with the number of steps that it has made."""
    buffer = io.BytesIO()
    random = _random_numbers(simulator).get_rng_state()
    torch.save({**simulator.state_dict, "step": steps, "random": random}, buffer)
    return buffer.getvalue()


def _random_numbers(simulator: Simulator) -> ModuleType:
    """The module that has the random numbers of the device of a run."""
    return torch.cuda if torch.device(simulator.device).type == "cuda" else torch.random
