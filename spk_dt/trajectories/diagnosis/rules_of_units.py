"""From slopes to sentences: time step, units, signs and masses."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from spk_dt.trajectories.diagnosis.bonds import Bonds, measure_bonds
from spk_dt.trajectories.diagnosis.causes import Cause, Explanation, Known, Measured, explain
from spk_dt.trajectories.diagnosis.finding import Finding
from spk_dt.trajectories.diagnosis.known_units import QUANTITIES
from spk_dt.trajectories.diagnosis.masses import OtherMasses, masses_finding, other_masses
from spk_dt.trajectories.diagnosis.pieces import PieceReader
from spk_dt.trajectories.diagnosis.remedy import Options, as_arguments, merged, shortest
from spk_dt.trajectories.diagnosis.scales import EnergyFit, Fit, Scales
from spk_dt.trajectories.diagnosis.survey import Survey
from spk_dt.trajectories.stated import UNITS

__all__ = ["of_scales", "tolerance"]

#: RMS of the forces, eV/Å, above which atoms must be bonded
_FORCES_ACT = 0.05


def tolerance(reader: PieceReader, scales: Scales) -> dict[str, float]:
    """How far slopes may be from one: errors, what noise and thermostats do to them, and the model of the step."""
    spaced = reader.inner_steps > 1 or scales.force.form == "spaced"
    force, velocity = scales.force, scales.velocity
    return {
        "force": max(0.03 if spaced else 0.02, 5.0 * _error(force, 0.02)),
        "velocity": max(0.03 if spaced else 0.005, 5.0 * _error(velocity, 0.01), 2.0 * velocity.unexplained),
    }


def _error(fit: Fit, unknown: float) -> float:
    """Relative error of a slope, `unknown` where there are too few frames to say, and at least what rounding makes."""
    return fit.relative_error if fit.relative_error < inf else max(unknown, fit.rounding / max(abs(fit.value), 1e-300))


def of_scales(
    reader: PieceReader, survey: Survey, scales: Scales | None, energy: EnergyFit | None, kelvin: float | None
) -> list[Finding]:
    """What explains the slopes: the explanation with the fewest causes, and others that are as good."""
    if scales is None:
        return []
    bonds = measure_bonds(reader)
    known = Known(bonds, kelvin, reader.step_fs / reader.inner_steps)
    ranked: list[tuple[float, OtherMasses, Explanation, dict[str, Measured]]] = []
    for masses in other_masses(reader, scales):
        measured = _measured(reader, survey, scales, energy, masses)
        for one in explain(measured, reader.recovered_velocities, len(reader.numbers), known):
            ranked.append((one.cost + masses.cost, masses, one, measured))
    if not ranked:
        return []
    ranked.sort(key=lambda one: one[0])
    alike = ranked[0][0] + (0.6 if reader.recovered_velocities or "force" not in ranked[0][3] else 0.25)
    told = [
        (_findings(reader, scales, masses, one.causes, measured), one)
        for cost, masses, one, measured in ranked
        if cost <= alike
    ]
    findings = told[0][0]
    if not findings:
        return _impossible(bonds) if survey.force > _FORCES_ACT else []
    if bonds is not None and any(cause.key == "length_unit" for cause in told[0][1].causes):
        first = findings[0]
        findings[0] = replace(first, text=f"{first.text[:-1]}; bonds show it ({bonds}).")
    return _with_alternatives(reader, findings, told)


def _impossible(bonds: Bonds | None) -> list[Finding]:
    """Atoms that have no neighbour at the distance of a bond, though all numbers fit: no equation tells which are wrong."""
    if bonds is None or bonds.ratio < 1.0 or not bonds.impossible:
        return []  # atoms that are too close are said to overlap
    text = (
        f"no atom has a neighbour at the distance of a bond ({bonds}), although forces act: positions are in another unit "
        "than Å, and forces, energies or the time step were multiplied so that they fit."
    )
    unit = next((name for name, value in UNITS["positions"].items() if bonds.cost(value) < 1.0), "UNIT")
    remedy = (
        f"Convert the files anew and state the units that they are in: --units positions={unit},energy=UNIT,forces=UNIT; in "
        "the units of the program, without factors of your own."
    )
    return [Finding("bonds", "refused", text, remedy, (), {"ratio": bonds.ratio, "ang": bonds.distance})]


def _measured(
    reader: PieceReader, survey: Survey, scales: Scales, energy: EnergyFit | None, masses: OtherMasses
) -> dict[str, Measured]:
    """The slopes that are known, with these masses."""
    allowed, force, velocity = tolerance(reader, scales), scales.force, scales.velocity
    found = {}
    known = np.isfinite(force.value) and _error(force, 0.0) < 0.1
    if survey.free.any() and known:
        found["force"] = Measured(masses.force, allowed["force"])
    if not reader.recovered_velocities and np.isfinite(velocity.value):
        found["velocity"] = Measured(masses.velocity, allowed["velocity"])
    if energy is not None and energy.unexplained < 0.5 and (known or not energy.kinetic):
        value = energy.value
        if energy.kinetic:
            value *= force.value / velocity.value**2
        found["energy"] = Measured(value, max(0.05, 5.0 * energy.error / abs(energy.value), energy.unexplained**0.5))
    return found


def _findings(
    reader: PieceReader, scales: Scales, masses: OtherMasses, causes: list[Cause], measured: Mapping[str, Measured]
) -> list[Finding]:
    """One finding for each cause."""
    values = {name: one.value for name, one in measured.items()}
    found = [_of_cause(reader, cause, scales, values) for cause in causes]
    if masses.masses != (None,) * len(masses.masses):
        found.insert(0, masses_finding(reader, scales, masses.masses, masses.momenta, "refused", "", values))
    return found


def _with_alternatives(
    reader: PieceReader, findings: list[Finding], told: list[tuple[list[Finding], Explanation]]
) -> list[Finding]:
    """The findings, the last of which also tells what else would look the same, and how to tell."""
    first = told[0][1]
    words, options, kelvin = [], [], []
    for others, one in told[1:]:
        words.append(" and ".join(_short(reader, finding) for finding in others))
        options.append(merged(finding.options for finding in others))
        if first.kelvin and one.kelvin and abs(one.kelvin / first.kelvin - 1.0) > 0.05:
            kelvin.append(f"{one.kelvin:.3g} K")
        else:
            kelvin.append("")
    for cause in first.causes:
        if cause.key == "energy_and_force_unit" and cause.unit is None:
            words.append("all masses were wrong by the inverse of this factor")
            masses = {int(i): shortest(float(m) / cause.factor, 1e-4) for i, m in enumerate(reader.masses)}
            options.append({"masses": masses} | ({} if reader.recovered_velocities else {"keep_momenta": False}))
            kelvin.append("")
    if not words:
        return findings
    instead = [
        f"{what} (then: {as_arguments(done) or 'nothing has to be done'}{f'; the temperature is then {t}' if t else ''})"
        for what, done, t in zip(words, options, kelvin, strict=True)
    ]
    last = findings[-1]
    text = f"{last.text[:-1]}; the same would show if {', or if '.join(instead)}."
    if any(kelvin):
        text += f" The temperature of the simulation tells: it is {first.kelvin:.3g} K with the first."
    else:
        text += " The input of the simulation tells."
    return [*findings[:-1], replace(last, text=text, alternatives=tuple(options))]


def _of_cause(reader: PieceReader, cause: Cause, scales: Scales, values: dict[str, Any]) -> Finding:
    """The finding of one cause."""
    key, factor, unit = cause.key, cause.factor, cause.unit
    values = {"factor": factor, **values}
    if key == "time_step":
        return _of_time_step(reader, factor, scales, values)
    known = f": they seem to be in {unit}" if unit else ""
    size = f"{factor:.3g} times too small" if factor > 1.0 else f"{1.0 / factor:.3g} times too large"
    if key == "velocity_sign":
        text = "velocities point backwards: the frames are in reverse order, or the sign of the velocities is wrong."
        remedy = "Turn the order of the frames round, or the sign; motion is reversible, and either gives sound data."
        return Finding(
            "reversed", "refused", text, remedy, (), values, {"reverse": True}, ({"units": {"velocities": "-1"}},)
        )
    if key == "force_sign":
        text = "forces point the wrong way: they are gradients of the energy."
        return Finding(key, "refused", text, "Change their sign.", (), values, {"units": {"forces": "-1"}})
    what, name = {
        "velocity_unit": ("velocities", "Å/fs"),
        "force_unit": ("forces", "eV/Å"),
        "energy_unit": ("energies", "eV"),
        "energy_and_force_unit": ("energies and forces", "eV, eV/Å"),
        "length_unit": ("positions", "Å"),
    }[key]
    text = f"{what} are in another unit than {name}, in which they are {size}{known}."
    remedy = f"Multiply by {factor:.6g}, or say the unit when converting."
    options = {"units": _unit_options(cause, values)}
    return Finding(key, "refused", text, remedy, (), {**values, "unit": unit}, options)


def _unit_options(cause: Cause, values: Mapping[str, Any]) -> dict[str, str]:
    """The unit by quantity, as `convert` takes it."""
    plain = cause.name or (f"{cause.factor:.12g}" if cause.unit else f"{cause.factor:.6g}")
    names = {quantity: plain for quantity in QUANTITIES[cause.key]}
    if cause.key == "energy_and_force_unit" and cause.name:
        names["forces"] = f"{cause.name}/Ang"
    return names


def _of_time_step(reader: PieceReader, factor: float, scales: Scales, values: dict[str, Any]) -> Finding:
    """A wrong time step, or frames that were saved every few steps."""
    said, true = reader.step_fs, reader.step_fs * factor
    every = round(factor)
    text = f"says {said:g} fs between frames, but they are {true:.3g} fs apart"
    thinned = every >= 2 and abs(factor - every) < 0.03 * every and reader.inner_steps == 1
    if thinned and scales.force.form == "spaced":
        text += f": one in {every} steps was saved, and frames are missing between."
        remedy = f"Write timestep_fs={every * said:g}, inner_steps={every} (spkdt convert --save-every {every})."
        options: Options = {"timestep_fs": said, "save_every": every}
        return Finding("thinned", "refused", text, remedy, (), {**values, "every": every}, options)
    error = 1.5 * _error(scales.force, 1e-3)
    step = shortest(true / reader.inner_steps, min(max(error, 1e-6), 5e-3))
    options = {"timestep_fs": step}
    alternatives: tuple[Options, ...] = ()
    if thinned and scales.force.unexplained > 1e-6:
        text += f": the time step is wrong, or one in {every} steps was saved and frames are missing between."
        remedy = (
            f"Write timestep_fs={every * said:g}, in the second case with inner_steps={every} (--save-every {every})."
        )
        alternatives = ({"timestep_fs": said, "save_every": every},)
    else:
        text += "."
        remedy = f"Write the trajectory with timestep_fs={step * reader.inner_steps:.4g}."
    values = {**values, "timestep_fs": true}
    return Finding("time_step", "refused", text, remedy, (), values, options, alternatives)


def _short(reader: PieceReader, finding: Finding) -> str:
    """A cause in a few words, after "if"."""
    if "timestep_fs" in finding.options:
        every = finding.options.get("save_every", reader.inner_steps)
        return f"the frames were {finding.options['timestep_fs'] * every:.3g} fs apart"
    if finding.key == "masses":
        return "masses were others"
    if finding.key == "reversed":
        return "velocities had the wrong sign"
    if finding.key == "force_sign":
        return "forces had the wrong sign"
    what = finding.key.removesuffix("_unit").replace("_", " ")
    factor, unit = finding.values["factor"], finding.values["unit"]
    return f"the unit of {what} were {unit or f'another, by a factor {factor:.3g}'}"
