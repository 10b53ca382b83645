"""Every thermostat, barostat and integrator of ``configs/md`` runs with the installed torch, and can be continued."""

import os
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import OmegaConf
from schnetpack.md import cli

CONFIGS = Path(__file__).parents[1] / "configs" / "md" / "dynamics"
HOOKS = [
    f"{group}={path.stem}" for group in ("thermostat", "barostat") for path in sorted((CONFIGS / group).glob("*.yaml"))
]
INTEGRATORS = [path.stem for path in sorted((CONFIGS / "integrator").glob("*.yaml"))]
REPLICAS = 4
OVERRIDES = [
    "calculator=lj", "calculator/neighbor_list=matscipy", "calculator.neighbor_list.cutoff=5.0",
    "calculator.stress_key=stress", "system/initializer=frames", "system.molecule_file=start.traj",
    "callbacks=[checkpoint]", "dynamics.progress=false", "seed=7",
]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The smallest crystal, with moving atoms, and matrices for coloured noise."""
    monkeypatch.chdir(tmp_path)
    atoms = bulk("Ar", cubic=True, a=5.1)
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.05, size=(4, 3)))  # Å / ASE time: some 1,000 K
    ase.io.write("start.traj", atoms)
    for n in (1, REPLICAS):
        Path(f"matrices_{n}").write_text(matrices(n))


def matrices(n):
    """Made-up friction (A) and covariance (C, of 300 K and `n` beads) in the format of gle4md.org."""
    blocks = {
        "# A MATRIX: (picoseconds^-1)\n": " 10.0 0.5\n -0.5 20.0\n",
        "# C MATRIX: (K)\n": f" {300 * n} 0.0\n 0.0 {300 * n}\n",
    }
    heads = [f"# Matrix for normal mode {i}\n" if n > 1 else "" for i in range(n)]
    return "".join(title + "".join(head + block for head in heads) for title, block in blocks.items())


def composed(*overrides):
    with initialize_config_module("schnetpack.md.md_configs", version_base="1.2"):
        return compose("config", overrides=[*OVERRIDES, *overrides], return_hydra_config=True)


def spkmd(name, *overrides, steps=3):
    """The program's main function in a folder of its own; the state at the end."""
    here = Path.cwd()
    config = composed(*overrides, f"simulation_dir={here / name}", f"dynamics.n_steps={steps}")
    HydraConfig.instance().set_config(config)
    (here / name).mkdir(exist_ok=True)
    os.chdir(here / name)
    try:
        cli.simulate.__wrapped__(config)
    finally:
        os.chdir(here)
    return torch.load(here / name / "checkpoint.chk", weights_only=False)


def overrides_for(hook):
    """The integrator that a hook is made for, and the hook with what it needs."""
    group, name = hook.split("=")
    config = composed(f"+dynamics/{hook}").dynamics[group]
    ring = get_class(config._target_).ring_polymer
    matrices = Path.cwd() / f"matrices_{REPLICAS if name == 'piglet' else 1}"
    files = [f"dynamics.{group}.gle_file={matrices}"] if OmegaConf.is_missing(config, "gle_file") else []
    integrator = ["dynamics/integrator=rpmd", f"system.n_replicas={REPLICAS}"] if ring else ["dynamics/integrator=md"]
    return integrator, [f"+dynamics/{hook}", *files]


def test_there_are_configs():
    assert {"thermostat=langevin", "thermostat=piglet", "barostat=nhc_aniso", "barostat=pile_rpmd"} <= set(HOOKS)
    assert set(INTEGRATORS) == {"md", "rpmd"}


@pytest.mark.parametrize("hook", HOOKS)
def test_hook(hook):
    """It changes the motion, and goes on from a checkpoint: if nothing is random, as if it had not been interrupted."""
    integrator, with_hook = overrides_for(hook)
    without = spkmd("without", *integrator)["system"]
    first = spkmd("first", *integrator, *with_hook)["system"]
    changed = "cells" if hook.startswith("barostat") else "momenta"
    assert all(bool(value.isfinite().all()) for value in first.values())
    assert (first[changed] - without[changed]).abs().max() > 1e-9
    second = spkmd("second", *integrator, *with_hook, f"restart={Path.cwd() / 'first' / 'checkpoint.chk'}")
    assert second["step"] == 6
    assert all(bool(value.isfinite().all()) for value in second["system"].values())
    if "nhc" in hook:
        whole = spkmd("whole", *integrator, *with_hook, steps=6)["system"]
        for key in ("positions", "momenta", "cells"):
            torch.testing.assert_close(second["system"][key], whole[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_integrator(integrator):
    beads = f"system.n_replicas={REPLICAS if integrator == 'rpmd' else 1}"
    positions = spkmd("out", f"dynamics/integrator={integrator}", beads)["system"]["positions"]
    start = torch.from_numpy(ase.io.read("start.traj").positions / 10.0)  # nm
    assert bool(positions.isfinite().all())
    assert 1e-5 < (positions - start).abs().max() < 0.1


@pytest.mark.parametrize("barostat", ["nhc_iso", "nhc_aniso"])
def test_chains_for_each_degree_of_freedom(barostat):
    state = spkmd("massive", f"+dynamics/barostat={barostat}", "dynamics.barostat.massive=true")["system"]
    assert all(bool(value.isfinite().all()) for value in state.values())
