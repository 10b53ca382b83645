"""The page that shows an evaluation."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import webbrowser
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.programs import spkdt
from helpers.synthetic_evaluation import MODELS, make_evaluation
from matplotlib import pyplot as plt

from spk_dt.evaluation.report import write_report
from spk_dt.evaluation.tables import format_number

OF_ENERGY = ("mae_mev_per_atom", "largest_mev_per_atom")
needs_chemiscope = pytest.mark.skipif(importlib.util.find_spec("chemiscope") is None, reason="needs chemiscope")


class Page(HTMLParser):
    """What a page refers to, its text, and the cells of its tables."""

    def __init__(self, text):
        super().__init__()
        self.references, self.cells, self.best, self.texts, self._tags = [], [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.references += [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action", "poster")]
        if tag not in ("meta", "img", "link"):
            self._tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        while self._tags and self._tags.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, attributes = self._tags[-1] if self._tags else ("", {})
        if tag not in ("script", "style"):
            self.texts.append(data)
        if tag == "td":
            self.cells.append(data)
            if attributes.get("class") == "best":
                self.best.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "dt"
    (folder / "csv" / "version_0").mkdir(parents=True)
    rows = "".join(f"{e},{1 + e // 3},{1 / (1 + e)}\n" for e in range(6))
    (folder / "csv" / "version_0" / "metrics.csv").write_text("epoch,S,val_loss\n" + rows)
    (folder / "config.yaml").write_text("globals:\n  cutoff: 4.25 # <b>Å</b>\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, database, run):
    return make_evaluation(tmp_path_factory.mktemp("evaluation") / "ev", database, "train", long_steps=100, run=run)


@pytest.fixture(scope="module")
def text(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    return path.read_text()


@pytest.fixture
def _no_figures(monkeypatch):
    """What a test of something else need not wait for."""
    monkeypatch.setattr("spk_dt.evaluation.report.write_figures", lambda results: [])


def report_without(folder, tmp_path, *names):
    """Report of a copy of the folder that lacks the files."""
    shutil.copytree(folder, tmp_path / "ev", ignore=shutil.ignore_patterns("report.html", "figures", *names))
    return write_report(tmp_path / "ev").read_text()


def test_nothing_is_loaded_from_elsewhere(text):
    references = Page(text).references
    assert len(references) == 5
    assert all(reference.startswith("data:") for reference in references)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert "*" not in policy
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_models_numbers_and_configuration_are_there(text, folder):
    page = Page(text)
    metrics = json.loads((folder / "metrics.json").read_text())
    for model in MODELS:
        assert model in page.text
        for value in metrics[model]["along_reference"]["mean_over_steps"].values():
            assert page.cells.count(format_number(value)) >= 2  # among the metrics, and where models are compared
    along = [metrics[model]["along_reference"]["mean_over_steps"]["H"] for model in MODELS]
    assert format_number(min(along)) not in page.best  # divergence has no best value
    energies = [metrics[model]["true_error"]["energy"][key] for key in OF_ENERGY for model in MODELS]
    assert page.best == [*page.best[:2], *(format_number(min(energies[i : i + 3])) for i in (0, 3))]
    assert "cutoff: 4.25 # <b>Å</b>" in page.text
    assert "spkdt evaluate" in page.text
    assert "torch 2.15.0" in page.text
    assert "measures how fast trajectories diverge" in page.text
    assert "quality of the potential where the model takes itself" in page.text


def test_figures_are_files_too(text, folder):
    names = {"error_pairs", "error_along_reference", "distances", "total_energy", "training_dt"}
    assert {path.stem for path in (folder / "figures").iterdir()} == names
    for name in names:
        assert f'<figure id="{name}">' in text
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@needs_chemiscope
def test_trajectories_of_the_3d_view(text, folder, database):
    from ase.db import connect

    (content,) = re.findall(r'<script type="application/json" id="scenes">(.*?)</script>', text)
    scenes = json.loads(content)
    assert [start["name"] for start in scenes["starts"]] == ["run_0, frame 0", "run_2, frame 0", "run_4, frame 0"]
    assert len(scenes["runs"]) == 2 * 3 * len(MODELS)
    run = next(r for r in scenes["runs"] if r["start"] == 1 and r["part"] == "beside the reference")
    assert run["time"] == [0.5 * k for k in range(1, 25)]
    row = connect(database).get(50 + 10 + 1)  # frame 10 of run_2
    np.testing.assert_allclose(np.reshape(run["reference"][9], (-1, 3)) / 1000, row.positions, atol=6e-4)
    assert scenes["starts"][1]["symbols"] == list(row.symbols)
    whole = next(r for r in scenes["runs"] if r["start"] == 1 and r["part"] == "whole run")
    assert whole["time"][-1] == 50.0
    assert "reference" not in whole


def test_what_is_optional_may_be_absent(folder, tmp_path):
    absent = (
        "true_error.csv",
        "distributions.json",
        "metrics.json",
        "force_error_by_start.csv",
        "*.hdf5",
        "start.traj",
    )
    page = Page(report_without(folder, tmp_path, *absent))
    assert "they have not been made" in page.text
    assert "has no metrics.json" in page.text
    assert len(page.references) == 2


@pytest.mark.usefixtures("_no_figures")
def test_without_chemiscope_the_page_says_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("spk_dt.evaluation.viewer.importlib.util.find_spec", lambda name: None)
    text = report_without(folder, tmp_path)
    assert "pip install 'spk_dt[report]'" in Page(text).text
    assert len(text) < 2e6


@needs_chemiscope
@pytest.mark.usefixtures("_no_figures")
def test_without_the_database_there_is_no_reference_to_show(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "ev")
    settings = json.loads((folder / "settings.json").read_text())
    (tmp_path / "ev" / "settings.json").write_text(json.dumps(settings | {"data": "/nowhere/a.db"}))
    text = write_report(tmp_path / "ev").read_text()
    assert '"part":"whole run"' in text
    assert '"part":"beside the reference"' not in text


@pytest.mark.usefixtures("_no_figures")
def test_metrics_of_all_kinds(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "ev")
    metrics = {m: {"exploded": [], "a_b": {"c": None, "d": True, "e": [1.0, 2.0]}} for m in MODELS}
    metrics["static"]["exploded"] = [{"start": 0, "step": 3, "trajectory": "run_0", "frame": 0, "time_fs": 1.5}]
    (tmp_path / "ev" / "metrics.json").write_text(json.dumps(metrics))
    page = Page(write_report(tmp_path / "ev").read_text())
    assert "simulations that exploded, of 3" in page.text
    assert page.best.count("0") == 2
    assert page.cells.count("–") == page.cells.count("yes") == page.cells.count("1, 2") == 3
    assert "a b" in page.text


@pytest.mark.parametrize(("screen", "started"), [(":0", True), (":0", False), ("", True)])
def test_the_page_is_opened_where_there_is_a_screen(folder, monkeypatch, screen, started):
    shown = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(webbrowser, "open", lambda address: shown.append(address) or started)
    monkeypatch.setattr(
        "spk_dt.evaluation.report.write_report", lambda directory, certificate: directory / "report.html"
    )
    code, out, err = spkdt("report", folder, "--open")
    assert code == 0
    assert out == f"{folder / 'report.html'}\n"
    assert shown == ([(folder / "report.html").as_uri()] if screen else [])
    assert ("no browser could be started" in err) == (not (screen and started))
    spkdt("report", folder)
    assert len(shown) == bool(screen)


def test_refusals(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not the folder of an evaluation: it has no settings\.json"):
        write_report(tmp_path)
    shutil.copytree(folder, tmp_path / "ev")
    table = (folder / "force_error.csv").read_text()
    for name, content, message in (
        ("settings.json", "{", "not readable JSON"),
        ("settings.json", "[]", "holds no dictionary"),
        ("settings.json", '{"models": {}}', "lacks elements, starts"),
        ("force_error.csv", table.replace("time_fs", "time"), "has no column time_fs"),
        ("force_error.csv", "model,step,time_fs,element,mae,std\n", "has no errors of dt, dt_painn, static"),
    ):
        (tmp_path / "ev" / name).write_text(content)
        with pytest.raises(ValueError, match=message):
            write_report(tmp_path / "ev")
        shutil.copy(folder / name, tmp_path / "ev" / name)


@pytest.mark.slow
@needs_chemiscope
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_in_a_browser_the_atoms_are_seen_and_nothing_is_complained_of(text, tmp_path):
    """Another run is chosen, then its eleventh frame is shown."""
    act = """<script>
    setTimeout(() => { choose("model").value = "dt"; choose("start").value = "1"; show(); }, 2000);
    setTimeout(() => { const i = { structure: 10, environment: 10 }; view.info.show(i); view.info.onchange(i);
                       console.log("TIME " + document.getElementById("view-time").textContent);
                       document.body.replaceChildren(document.getElementById("view")); }, 5000);
    </script></body>"""
    (tmp_path / "page.html").write_text(text.replace("</body>", act))
    options = (
        "--headless --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync --enable-logging=stderr "
        f"--window-size=800,600 --virtual-time-budget=8000 --user-data-dir={tmp_path / 'profile'} "
        f"--screenshot={tmp_path / 'page.png'}"
    )
    command = ["chromium", *options.split(), (tmp_path / "page.html").as_uri()]
    log = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stderr
    (said,) = [line for line in log.splitlines() if "CONSOLE" in line]
    assert "TIME Time: 5.5 fs. Mean distance from the reference: Pd 0.0" in said
    red, green, blue = np.moveaxis(plt.imread(tmp_path / "page.png")[..., :3], -1, 0)
    assert ((blue > red + 0.2) & (green > red + 0.1)).sum() > 500  # palladium, of the model
    assert ((red > green + 0.1) & (blue > green + 0.05)).sum() > 100  # the reference
