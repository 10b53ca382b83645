"""Figures of an evaluation, with their captions: what decides first, divergence from the reference last."""

from pathlib import Path

from matplotlib.figure import Figure

from spk_dt.evaluation.certificate_figure import plot_survival
from spk_dt.evaluation.figures import plot_along_reference, plot_distributions, plot_energy_change, plot_error_pairs
from spk_dt.evaluation.motion_figures import plot_displacement, plot_pairs, plot_vibrations
from spk_dt.evaluation.plot_style import save_figure
from spk_dt.evaluation.results import Results
from spk_dt.evaluation.training_curve import plot_training_curve, read_training_curve

__all__ = ["BAND", "write_figures"]

#: what the band of a survival curve is
BAND = (
    "band: 95 % confidence (log-log transform with Greenwood's variance; where none or all have failed, the exact interval "
    "of a share)."
)

_CAPTIONS = {
    "survival": "Simulations of this evaluation that have not failed against time, by the geometries that the reference "
    "method has computed; " + BAND,
    "error_pairs": "The two force errors, mean over starting points; each panel has its own scale. Left: true error of "
    "the geometries that the models visit, relabelled with the reference method, with one standard deviation over starting "
    "points as band. Right: error along the reference, with the 16th to 84th percentile over starting points as band.",
    "error_along_reference": "Force error along the reference against the simulation step, mean over starting points. The "
    "band is the 16th to 84th percentile over starting points.",
    "distances": "Distances between atoms in the simulations and in the reference, over the time that the reference lasts.",
    "vibrations": "Vibrational density of states of each element, weighted by mass, from the velocities of the simulations; "
    "the integral over all elements is 1. A short trajectory shows broad lines.",
    "displacement": "Mean square displacement of each element, mean over atoms and origins of time, without the motion of "
    "the centre of mass.",
    "pairs": "Force between the two closest atoms of each pair of elements, pushed together in a frame of the data; "
    "positive is repulsive. Dotted: the shortest distance of the data.",
    "total_energy": "Change of the total energy, a line for each starting point. Exact dynamics conserves it; a drift or a "
    "jump shows a potential that is not smooth, or a time step that is too long.",
}

_CAPTIONS_WITH_THERMOSTAT = {
    "error_pairs": "True force error of the geometries that the models visit, relabelled with the reference method, mean "
    "over starting points, with one standard deviation as band.",
    "distances": "Distances between atoms in the simulations.",
}

_CAPTIONS_OF_TRAJECTORIES = {
    "distances": "Distances between atoms in the trajectories, over their whole length, and in the frames of the data.",
}

_MOTION = {"vibrations": plot_vibrations, "displacement": plot_displacement, "pairs": plot_pairs}


def write_figures(results: Results) -> list[tuple[str, str, Path]]:
    """Write the figures that the results allow as PDF, SVG and PNG.

    Returns:
        name, caption and path without ending of each.
    """
    folder = results.directory / "figures"
    figures: dict[str, Figure] = {}
    survived = _survival(results)
    if survived is not None:
        figures["survival"] = survived
    if results.true_errors:
        figures["error_pairs"] = plot_error_pairs(results)
    energy = None if results.thermostat else plot_energy_change(results)
    if energy is not None:
        figures["total_energy"] = energy
    if any(results.distributions.values()):
        figures["distances"] = plot_distributions(results.distributions, list(results.models))
    for name, plot in _MOTION.items():
        drawn = plot(results.motion.get(name, {}), list(results.models))
        if drawn is not None:
            figures[name] = drawn
    if results.follows_reference:
        figures["error_along_reference"] = plot_along_reference(results)
    captions = _CAPTIONS | (_CAPTIONS_WITH_THERMOSTAT if not results.follows_reference else {})
    captions |= _CAPTIONS_OF_TRAJECTORIES if results.of_trajectories else {}
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


def _survival(results: Results) -> Figure | None:
    """Survival of the simulations of an evaluation; None where it is not known which have failed."""
    models, longest = {}, 0.0
    for model in results.models:
        found = results.metrics.get(model, {}).get("true_error", {}).get("failures")
        if not found or not found["by_start"]:
            return None
        ends = {one["start"]: results.simulated_fs(one["start"]) for one in found["by_start"]}
        longest = max(longest, *ends.values())
        models[model] = {
            "outcomes": [
                {
                    "failed_ps": None if one["failed_fs"] is None else 1e-3 * one["failed_fs"],
                    "simulated_ps": 1e-3 * ends[one["start"]],
                }
                for one in found["by_start"]
            ]
        }
    return plot_survival(models, 1e-3 * longest)
