"""All measurements, written to a Markdown file as they come, with what they were made on."""

import os
import platform
import sys
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import loading, memory, scaling, simulation, training_step, validation
from benchmarks.reference import COMMIT
from benchmarks.settings import Settings

__all__ = ["header", "run"]

#: command -> what makes its table
COMMANDS: dict[str, Callable[[Settings], str]] = {
    "training-step": training_step.run,
    "validation": validation.run,
    "md": simulation.run,
    "scaling": scaling.run,
    "memory": memory.run,
    "loading": loading.run,
}


def run(settings: Settings, out: Path, commands: dict[str, Callable[[Settings], str]] | None = None) -> None:
    """Write the file.

    Args:
        settings: how to measure.
        out: Markdown file.
        commands: what to run; default all.
    """
    text = header(settings)
    for name, command in (commands or COMMANDS).items():
        out.write_text(text, encoding="utf-8")
        text += f"## {name}\n\n{(sys.modules[command.__module__].__doc__ or '').strip()}\n\n{command(settings)}\n"
    out.write_text(text, encoding="utf-8")


def header(settings: Settings) -> str:
    """Machine, versions, threads, date and command."""
    packages = ("spk_dt", "schnetpack", "torch", "pytorch-lightning", "numpy", "ase")
    packages += () if settings.reference is None else ("torch_geometric", "pymatgen")
    device = _processor() if settings.device == "cpu" else torch.cuda.get_device_name()
    lines = {
        "machine": f"{device}; {os.cpu_count()} cores, {_memory()}; {platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "versions": f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages),
        "reference code": "not measured" if settings.reference is None else f"github.com/IZugec/DTEGNN, {COMMIT}",
        "date": date.today().isoformat(),
        "command": "`python -m benchmarks " + " ".join(_without_paths(sys.argv[1:])) + "`",
    }
    return "# Benchmarks\n\n" + "\n".join(f"- {key}: {value}" for key, value in lines.items()) + "\n\n"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"


def _without_paths(arguments: list[str]) -> list[str]:
    return [Path(text).name if "/" in text and "=" not in text else text for text in arguments]
