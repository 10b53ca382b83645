"""Which disagreement of a committee tells wrong states from right ones.

    python -m benchmarks.uncertainty RUN RUN ... DATA.db WRONG.traj

Right states are those of the test partition of the data, WRONG.traj is the `first_wrong.traj` of a certificate of such a
model. Prints for the force on an atom (of which `spkdt certify --committee` takes the largest), the energy of the system and
the energy of an atom (both in files of `spkdt export`): the median of the largest standard deviation in a state, right
and wrong, and the probability that a wrong state has the larger one (0.5: it tells nothing).
"""

import tempfile
from pathlib import Path
from typing import Annotated

import ase.io
import numpy as np
import typer
from ase import Atoms
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

from spk_dt.certificate.committee import CommitteeEngine
from spk_dt.data.start_frames import start_frames
from spk_dt.export.potential import ENSEMBLE
from spk_dt.export.write import export_model
from spk_dt.training.pretrained import model_path

#: of each trajectory of the test partition
FRAMES = range(0, 400, 50)


def disagreement(files: list[Path], frames: list[Atoms], folder: Path) -> dict[str, np.ndarray]:
    """[n_frames] of each kind: eV/Å, eV, eV."""
    exported = folder / "committee.pt"
    if not exported.exists():
        export_model(files, exported)
    calculator = MetatomicCalculator(str(exported), device="cpu", uncertainty_threshold=None)

    def ensemble(kind: str) -> np.ndarray:
        asked = {ENSEMBLE: ModelOutput(unit="eV", sample_kind=kind)}
        found = [calculator.run_model(atoms, asked)[ENSEMBLE].block().values.detach().numpy() for atoms in frames]
        return np.array([values.std(axis=1, ddof=1).max() for values in found])

    evaluated = CommitteeEngine(files, compile=False).evaluated(frames)
    return {
        "force on an atom, eV/Å": np.array([atoms.info["uncertainty"] for atoms in evaluated]),
        "energy of the system, eV": ensemble("system"),
        "energy of an atom, eV": ensemble("atom"),
    }


def main(
    runs: Annotated[list[Path], typer.Argument(help="Runs, or stored models; then the data; then wrong states.")],
) -> None:
    """Compare kinds of disagreement."""
    *models, data, wrong = runs
    files = [model_path(one) for one in models]
    with tempfile.TemporaryDirectory() as name:
        right = [one for frame in FRAMES for one in start_frames(data, "test", frame=frame)]
        found = disagreement(files, right, Path(name)), disagreement(files, ase.io.read(wrong, ":"), Path(name))
    print(f"{'standard deviation of':28s} {'right':>8s} {'wrong':>8s} {'P(wrong > right)':>17s}")
    for kind, of_right in found[0].items():
        of_wrong = found[1][kind]
        larger = (of_wrong[:, None] > of_right).mean()
        print(f"{kind:28s} {np.median(of_right):8.3f} {np.median(of_wrong):8.3f} {larger:17.2f}")


if __name__ == "__main__":
    typer.run(main)
