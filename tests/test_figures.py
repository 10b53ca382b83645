"""Figures of an evaluation and of a training."""

import csv
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from helpers.synthetic_evaluation import MODELS, make_evaluation
from matplotlib import pyplot as plt
from matplotlib.collections import FillBetweenPolyCollection

from spk_dt.evaluation.figures import plot_along_reference, plot_distributions, plot_energy_change, plot_error_pairs
from spk_dt.evaluation.plot_style import save_figure, styles, time_unit
from spk_dt.evaluation.results import read_results, read_simulation
from spk_dt.evaluation.training_curve import TrainingCurve, plot_training_curve


@pytest.fixture(scope="module")
def folder(tmp_path_factory, database):
    return make_evaluation(tmp_path_factory.mktemp("evaluation") / "ev", database, "train", long_steps=5000)


@pytest.fixture(scope="module")
def results(folder):
    return read_results(folder)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def table(path, **wanted):
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if all(row[key] == value for key, value in wanted.items())]


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_error_along_the_reference_is_what_the_table_says(folder, results):
    figure = plot_along_reference(results)
    assert [axes.get_title() for axes in figure.axes] == ["H", "Pd"]
    for axes, element in zip(figure.axes, ("H", "Pd"), strict=True):
        assert set(lines(axes)) == set(MODELS)
        for model, line in lines(axes).items():
            rows = table(folder / "force_error.csv", model=model, element=element)
            np.testing.assert_allclose(line.get_xdata(), [int(row["step"]) for row in rows])
            np.testing.assert_allclose(line.get_ydata(), [float(row["mae"]) for row in rows])
        assert axes.get_xlabel() == "simulation step"
        (top,) = axes.child_axes
        assert top.get_xlabel() == "time (fs)"
        figure.canvas.draw()
        np.testing.assert_allclose(top.get_xlim(), np.array(axes.get_xlim()) * 0.5)
    assert "eV/Å" in figure.axes[0].get_ylabel()


def test_the_band_is_the_spread_over_starts(folder, results):
    axes = plot_along_reference(results).axes[0]
    bands = [one for one in axes.collections if isinstance(one, FillBetweenPolyCollection)]
    assert len(bands) == len(MODELS)
    rows = table(folder / "force_error_by_start.csv", model="static", element="H", step="10")
    low, high = np.percentile([float(row["mae"]) for row in rows], (16, 84))
    at_step = bands[0].get_paths()[0].vertices
    at_step = at_step[at_step[:, 0] == 10.0][:, 1]
    np.testing.assert_allclose([at_step.min(), at_step.max()], [low, high])


def test_the_two_errors_stand_beside_each_other(folder, results):
    figure = plot_error_pairs(results)
    assert len(figure.axes) == 4
    true, along = figure.axes[0], figure.axes[1]
    assert "along the reference" in along.get_title()
    assert "divergence" in along.get_title()
    assert "true error" in true.get_title()
    assert figure.axes[2].get_xlabel() == "simulated time (ps)"
    assert figure.axes[3].get_xlabel() == "simulated time (fs)"
    rows = table(folder / "true_error.csv", model="dt", element="H")
    np.testing.assert_allclose(lines(true)["dt"].get_xdata(), [float(row["time_fs"]) / 1000 for row in rows])
    np.testing.assert_allclose(lines(true)["dt"].get_ydata(), [float(row["mae"]) for row in rows])
    assert lines(true)["dt"].get_xdata()[-1] == 2.5
    assert true.get_ylim()[0] == along.get_ylim()[0] == 0.0


def test_without_true_errors_there_is_no_pair(results):
    with pytest.raises(ValueError, match=r"no true_error\.csv"):
        plot_error_pairs(replace(results, true_errors={}))


def test_large_errors_make_the_axis_logarithmic(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "ev")
    with (tmp_path / "ev" / "true_error.csv").open("w") as stream:
        stream.write("model,step,time_fs,element,mae,std\n")
        for step in range(10):
            stream.write(f"dt,{step},{step / 2},H,{0.1 * 3**step},0\ndt,{step},{step / 2},Pd,0.1,0\n")
    figure = plot_error_pairs(read_results(tmp_path / "ev"))
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "linear", "linear"]


def test_distributions(results):
    figure = plot_distributions(results.distributions, list(results.models))
    assert [axes.get_title() for axes in figure.axes] == ["all pairs", "H-H", "H-Pd"]
    shown = lines(figure.axes[1])
    assert list(shown) == ["reference", *MODELS]
    np.testing.assert_allclose(shown["dt"].get_ydata(), results.distributions["rdf"]["H-H"]["dt"]["g"])
    assert shown["reference"].get_color() == "#000000"


def test_total_energy(results):
    """The synthetic total energy grows at a constant rate, once the frame stays the same."""
    axes = plot_energy_change(results).axes[0]
    change = {model: line.get_ydata() for model, line in lines(axes).items()}
    assert change["static"][0] == 0.0
    rate = 1e-3 * MODELS["static"][1] * 5000 / 6 * 1e3  # meV per atom at the end, for a factor of 1
    assert 0.4 * rate < change["static"][-1] < 1.6 * rate
    assert axes.lines[0].get_xdata()[-1] == pytest.approx(2.5, rel=1e-2)
    assert axes.get_xlabel() == "simulated time (ps)"


def test_simulation_in_our_units(results, database):
    from spk_dt.data.start_frames import start_frames

    simulation = read_simulation(results, "dt", results.starts[1])
    assert simulation.step.tolist()[:3] == [1, 2, 3]
    assert simulation.positions.shape == (5000, 6, 3)
    second = start_frames(database, "train", frame=1)[1]
    np.testing.assert_allclose(simulation.positions[0], second.positions, atol=1e-5)
    total = second.get_kinetic_energy() + second.get_potential_energy()
    assert simulation.total_energy[0] == pytest.approx(total, abs=1e-4)
    thinned = read_simulation(results, "dt", results.starts[1], most=100)
    assert thinned.step.tolist() == list(range(1, 5001, 50))
    assert read_simulation(results, "nobody", results.starts[0]) is None


def test_nothing_is_read_after_an_explosion(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "ev")
    with h5py.File(tmp_path / "ev" / "dt" / "simulation_0.hdf5", "a") as file:
        file.attrs["exploded_step"] = [-1, 7, -1]
    results = read_results(tmp_path / "ev")
    assert read_simulation(results, "dt", results.starts[1]).step.tolist() == [1, 2, 3, 4, 5, 6]
    assert len(read_simulation(results, "dt", results.starts[0]).step) == 5000


def test_two_time_steps_are_two_pieces_of_a_line(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "ev")
    (tmp_path / "ev" / "force_error_by_start.csv").unlink()
    with (tmp_path / "ev" / "force_error.csv").open("w") as stream:
        stream.write("model,step,time_fs,element,mae,std\n")
        for model in MODELS:
            for timestep in (0.5, 1.0):
                stream.writelines(f"{model},{k},{k * timestep},H,0.{k + 1},0\n" for k in range(3))
    errors = read_results(tmp_path / "ev").along_reference["dt"]["H"]
    np.testing.assert_array_equal(errors.mae, [0.1, 0.2, 0.3, np.nan, 0.1, 0.2, 0.3])
    plot_along_reference(read_results(tmp_path / "ev"))


def test_models_differ_in_colour_line_and_marker(tmp_path):
    found = styles("abcde")
    for key in ("color", "linestyle", "marker"):
        assert len({str(style[key]) for style in found.values()}) == 5
    assert time_unit(200.0) == ("fs", 1.0)
    assert time_unit(10000.0) == ("ps", 1e-3)


def test_saved_as_vectors_and_pixels(tmp_path):
    figure, _ = plt.subplots(figsize=(6, 3))
    files = save_figure(figure, tmp_path / "sub" / "a.b")
    assert [file.name for file in files] == ["a.b.pdf", "a.b.svg", "a.b.png"]
    assert plt.imread(files[2]).shape[:2] == (600, 1200)
    assert not plt.fignum_exists(figure.number)


def test_training_curve_has_an_inset_of_what_follows_the_first_stage():
    error = np.array([1.0, 0.4, 0.3, 0.31, 0.25, 9.0, 0.2])
    curve = TrainingCurve(np.arange(7), error, np.array([1, 1, 1, 2, 2, 3, 3]))
    axes = plot_training_curve(curve).axes[0]
    (inset,) = axes.child_axes
    np.testing.assert_array_equal(inset.lines[0].get_xdata(), [2, 3, 4, 5, 6])
    np.testing.assert_array_equal(inset.lines[0].get_ydata(), error[2:])
    assert inset.get_yscale() == "linear"
    assert 0.31 < inset.get_ylim()[1] < 1.0  # one epoch that exploded does not set the scale
    assert axes.lines[1].get_ydata()[0] == inset.lines[1].get_ydata()[0] == 0.3
    only = TrainingCurve(np.arange(3), error[:3], np.ones(3, dtype=int))
    assert plot_training_curve(only).axes[0].child_axes == []
