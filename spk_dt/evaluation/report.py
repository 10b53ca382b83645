"""One page that shows certificates and an evaluation: how long models last, which is best at what, trajectories in 3D.

The page is a single HTML file that loads nothing: figures, trajectories and the library that draws them are inside, and a
content security policy forbids the rest. The figures are also written as files, for a paper.
"""

import json
import shlex
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spk_dt.evaluation.certificate_figure import plot_survival
from spk_dt.evaluation.certificates import FILE as CERTIFICATE
from spk_dt.evaluation.certificates import Certificate, WrongState, check_models, read_certificate
from spk_dt.evaluation.plot_style import save_figure
from spk_dt.evaluation.report_figures import BAND, write_figures
from spk_dt.evaluation.results import Results, read_results
from spk_dt.evaluation.tables import metric_tables, repulsion_table, verdict
from spk_dt.evaluation.viewer import chemiscope_script, scenes
from spk_dt.evaluation.wrong_state_figure import plot_wrong_states

__all__ = ["write_report"]

_MOST_PICTURES = 6  # of first wrong states of a certificate

_CAPTIONS = {
    "survival": "Simulations that have not failed against time, Kaplan-Meier estimate; " + BAND,
    "wrong_states": "First wrong states, the earliest of each model. Red: the closest contact, the two atoms whose distance "
    "is smallest over the sum of their covalent radii (in brackets). Orange: the atom whose force has the largest error. "
    "Atoms farther than 9 Å from the contact are left out.",
}


def write_report(directory: str | Path, certificates: Iterable[str | Path] = ()) -> Path:
    """Write the report of an evaluation and of certificates, and its figures as files.

    Args:
        directory: folder that ``spkdt evaluate`` or ``spkdt certify`` wrote. The page is ``report.html`` in it, the figures
            are in ``figures``; what an earlier report left there is replaced.
        certificates: folders that ``spkdt certify`` wrote; those in the folder itself that are called ``certificate*`` are
            found.

    Returns:
        the page.

    Raises:
        FileNotFoundError: if the folder is none of an evaluation or a certificate, or one of `certificates` is none.
        ValueError: if a file is not what an evaluation or a certificate writes, or a certificate is of another model file
            than the evaluation of the same name.
    """
    directory = Path(directory)
    certified = _certificates(directory, certificates)
    results = read_results(directory) if (directory / "force_error.csv").is_file() or not certified else None
    names = list(dict.fromkeys([*(results.models if results else ()), *(n for c in certified for n in c.models)]))
    context: dict[str, Any] = {"results": None}
    if results is not None:
        context = _evaluation(results) | {"not_compared": check_models(certified, results.settings)}
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.jinja").render(
        {"not_compared": []}
        | context
        | {
            "title": f"{'Certificate' if results is None else 'Evaluation'} of {', '.join(names)}",
            "several": len(names) > 1,
            "certificates": [
                _shown_certificate(one, label, directory, names)
                for one, label in zip(certified, _labels(certified), strict=True)
            ],
        }
    )
    path = directory / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _evaluation(results: Results) -> dict[str, Any]:
    """What the template shows of an evaluation."""
    script = chemiscope_script()
    true = [results.metrics.get(model, {}).get("true_error", {}) for model in results.models]
    return {
        "results": results,
        "command": shlex.join(results.settings.get("command", [])),
        "versions": results.settings.get("versions", {}),
        "verdict": verdict(results),
        "absent": _absent(results.motion) | _not_known(results),
        "failures_known": any("failures" in one for one in true),
        "figures": [_shown(name, caption, folder) for name, caption, folder in write_figures(results)],
        "repulsion": repulsion_table(results),
        "metrics": metric_tables(results.metrics, list(results.models)),
        "configurations": _configurations(results),
        "settings": json.dumps(results.settings, indent=2, ensure_ascii=False),
        "scenes": json.dumps(scenes(results), separators=(",", ":")).replace("<", "\\u003c") if script else None,
        "script": script,
    }


def _absent(motion: Mapping[str, Any]) -> dict[str, str]:
    """Curves that there are not, and why, each reason once."""
    found: dict[str, str] = {}
    for quantity in ("vibrations", "displacement"):
        reasons = {name: one["reason"] for name, one in motion.get(quantity, {}).items() if "reason" in one}
        found |= {f"{quantity} of {name}": reason for name, reason in reasons.items()}
    return found


def _not_known(results: Results) -> dict[str, str]:
    """Numbers that there are not, and why."""
    found: dict[str, str] = {}
    for model in results.models:
        metrics = results.metrics.get(model, {})
        reasons = dict(metrics.get("not_known", {}))
        if "reason" in metrics.get("true_error", {}):
            reasons["true error"] = metrics["true_error"]["reason"]
        found |= {f"{what} of {model}": why for what, why in reasons.items()}
    return found


def _certificates(directory: Path, named: Iterable[str | Path]) -> list[Certificate]:
    """Those that are named, and those in the folder of the report."""
    there = [directory, *sorted(directory.glob("certificate*"))]
    folders = [*(folder for folder in there if (folder / CERTIFICATE).is_file()), *map(Path, named)]
    return [read_certificate(folder) for folder in {folder.resolve(): folder for folder in folders}.values()]


def _shown_certificate(certificate: Certificate, label: str, directory: Path, names: Sequence[str]) -> dict[str, Any]:
    """What the template shows of a certificate; the figures are written to the folder of the report."""
    wrong = certificate.wrong_states
    figures = {"survival": plot_survival(certificate.models, certificate.conditions.time_ps, names)}
    drawn = [one for one in _first_of_each(wrong, list(certificate.models)) if one.atoms is not None]
    if drawn:
        figures["wrong_states"] = plot_wrong_states(drawn)
    shown = []
    for name, figure in figures.items():
        path = directory / "figures" / f"{name}_{label}"
        save_figure(figure, path)
        shown.append(_shown(path.name, _CAPTIONS[name], path))
    return {
        **{key: getattr(certificate, key) for key in ("title", "statements", "table", "method", "folder")},
        "check": certificate.reference_check,
        "figures": shown,
        "wrong": wrong,
        "settings": json.dumps(certificate.settings, indent=2, ensure_ascii=False),
    }


def _labels(certificates: Sequence[Certificate]) -> list[str]:
    """Names for files, by conditions, and numbered where these are the same."""
    found: list[str] = []
    for one in certificates:
        kelvin = (one.conditions.temperature, one.conditions.end_temperature)
        label = "_".join([f"{one.conditions.time_ps:g}ps", *(f"{value:g}K" for value in kelvin if value is not None)])
        before = sum(other == label or other.startswith(f"{label}_no") for other in found)
        found.append(f"{label}_no{before + 1}" if before else label)
    return found


def _first_of_each(wrong: Sequence[WrongState], models: Sequence[str]) -> list[WrongState]:
    """At most `_MOST_PICTURES` states, of all models as far as they have any, the earliest of each."""
    ranks = [(rank, one) for model in models for rank, one in enumerate(w for w in wrong if w.model == model)]
    chosen = sorted(ranks, key=lambda pair: pair[0])[:_MOST_PICTURES]
    return [one for one in wrong if any(one is other for _, other in chosen)]


def _shown(name: str, caption: str, path: Path) -> dict[str, str]:
    """A figure as it stands in the page."""
    svg = path.with_name(f"{path.name}.svg").read_bytes()
    return {"name": name, "caption": caption, "source": "data:image/svg+xml;base64," + b64encode(svg).decode()}


def _configurations(results: Results) -> dict[str, str | None]:
    """The configuration of each model's training, or None where it is not beside the model."""
    paths = {model: Path(path).parent / "config.yaml" for model, path in results.models.items()}
    return {model: path.read_text(encoding="utf-8") if path.is_file() else None for model, path in paths.items()}
