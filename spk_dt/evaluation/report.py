"""One page that shows an evaluation: what was run, which model is best at what, figures, numbers, trajectories in 3D.

The page is a single HTML file that loads nothing: figures, trajectories and the library that draws them are inside, and a
content security policy forbids the rest. The figures are also written as files, for a paper.
"""

import json
import shlex
from base64 import b64encode
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from spk_dt.evaluation.figures import plot_along_reference, plot_distributions, plot_energy_change, plot_error_pairs
from spk_dt.evaluation.plot_style import save_figure
from spk_dt.evaluation.results import Results, read_results
from spk_dt.evaluation.tables import metric_tables, verdict
from spk_dt.evaluation.training_curve import plot_training_curve, read_training_curve
from spk_dt.evaluation.viewer import chemiscope_script, scenes

__all__ = ["write_figures", "write_report"]

_CAPTIONS = {
    "error_pairs": "The two force errors, mean over starting points; each panel has its own scale. Left: error along the "
    "reference, with the 16th to 84th percentile over starting points as band. Right: true error of the geometries "
    "that the models visit, relabelled with the reference method, with one standard deviation over starting points as band.",
    "error_along_reference": "Force error along the reference against the simulation step, mean over starting points. The "
    "band is the 16th to 84th percentile over starting points.",
    "distances": "Distances between atoms in the simulations and in the reference, over the time that the reference lasts.",
    "total_energy": "Change of the total energy, a line for each starting point. Exact dynamics conserves it; a drift or a "
    "jump shows a potential that is not smooth, or a time step that is too long.",
}

_CAPTIONS_WITH_THERMOSTAT = {
    "error_pairs": "True force error of the geometries that the models visit, relabelled with the reference method, mean "
    "over starting points, with one standard deviation as band.",
    "distances": "Distances between atoms in the simulations.",
}


def write_report(directory: str | Path) -> Path:
    """Write the report of an evaluation, and its figures as files.

    Args:
        directory: folder that ``spkdt evaluate`` wrote. The page is ``report.html`` in it, the figures are in ``figures``;
            what an earlier report left there is replaced.

    Returns:
        the page.

    Raises:
        FileNotFoundError: if the folder is none of an evaluation.
        ValueError: if a file in it is not what an evaluation writes.
    """
    results = read_results(directory)
    template = files("spk_dt.evaluation") / "report.html.jinja"
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    script = chemiscope_script()
    page = environment.from_string(template.read_text(encoding="utf-8")).render(
        results=results,
        command=shlex.join(results.settings.get("command", [])),
        versions=results.settings.get("versions", {}),
        verdict=verdict(results),
        figures=[_shown(name, caption, folder) for name, caption, folder in write_figures(results)],
        metrics=metric_tables(results.metrics, list(results.models)),
        configurations=_configurations(results),
        settings=json.dumps(results.settings, indent=2, ensure_ascii=False),
        scenes=json.dumps(scenes(results), separators=(",", ":")).replace("<", "\\u003c") if script else None,
        script=script,
    )
    path = results.directory / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def write_figures(results: Results) -> list[tuple[str, str, Path]]:
    """Write the figures that the results allow as PDF, SVG and PNG.

    Returns:
        name, caption and path without ending of each.
    """
    folder = results.directory / "figures"
    figures: dict[str, Figure] = {}
    if results.true_errors:
        figures["error_pairs"] = plot_error_pairs(results)
    if not results.thermostat:
        figures["error_along_reference"] = plot_along_reference(results)
    if any(results.distributions.values()):
        figures["distances"] = plot_distributions(results.distributions, list(results.models))
    energy = None if results.thermostat else plot_energy_change(results)
    if energy is not None:
        figures["total_energy"] = energy
    captions = _CAPTIONS | (_CAPTIONS_WITH_THERMOSTAT if results.thermostat else {})
    for model, path in results.models.items():
        try:
            curve = read_training_curve(Path(path).parent)
        except (FileNotFoundError, ValueError):
            continue  # a model that was not made by a dynamic training
        figures[f"training_{model}"] = plot_training_curve(curve)
        captions[f"training_{model}"] = (
            f"Training of {model}: error of free rollouts on the validation trajectories. Dashed: the level at the end of "
            "the first stage, S = 1, which is conventional training."
        )
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    return [(name, captions[name], folder / name) for name in figures]


def _shown(name: str, caption: str, path: Path) -> dict[str, str]:
    """A figure as it stands in the page."""
    svg = path.with_name(f"{path.name}.svg").read_bytes()
    return {"name": name, "caption": caption, "source": "data:image/svg+xml;base64," + b64encode(svg).decode()}


def _configurations(results: Results) -> dict[str, str | None]:
    """The configuration of each model's training, or None where it is not beside the model."""
    paths = {model: Path(path).parent / "config.yaml" for model, path in results.models.items()}
    return {model: path.read_text(encoding="utf-8") if path.is_file() else None for model, path in paths.items()}
