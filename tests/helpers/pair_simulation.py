"""Simulations with models of the pair potential in the folder of the fixture ``pair_folder``."""

import os
import signal

import ase.io
import torch
from schnetpack.md import Simulator, System
from schnetpack.md.calculators import SchNetPackCalculator
from schnetpack.md.integrators import VelocityVerlet
from schnetpack.md.simulation_hooks import SimulationHook

from spk_dt.md import FramesInit, ReferenceComparison, VerletNeighborList

STEPS = 40


def simulator(hooks, model="exact", timestep_fs=0.5, file="start.extxyz", initializer=None, n_replicas=1):
    system = System()
    system.load_molecules(ase.io.read(file, ":"), n_replicas)
    (FramesInit(file) if initializer is None else initializer).initialize_system(system)
    neighbors = VerletNeighborList(model_file=model)
    calculator = SchNetPackCalculator(model, "forces", "eV", "Angstrom", neighbors, energy_key="energy")
    return Simulator(system, VelocityVerlet(timestep_fs), calculator, hooks, progress=False).to(torch.float64)


def comparison(data, **kwargs):
    return ReferenceComparison(str(data), "start.extxyz", **{"log_file": None, **kwargs})


class Kill(SimulationHook):
    """Kills the program in a step; by import path, ``helpers.pair_simulation.Kill``."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_step_finalize(self, simulator):
        if simulator.step + 1 == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
