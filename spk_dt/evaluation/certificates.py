"""Certificates as the report shows them: read from their folders, in sentences, tables, and first wrong states."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.data import chemical_symbols

from spk_dt.certificate.conditions import Conditions
from spk_dt.certificate.novelty import NOVELTY
from spk_dt.certificate.statement import first_failure, statement
from spk_dt.certificate.survival import Survival, survival
from spk_dt.evaluation.tables import Table, format_number, ranked

__all__ = ["FILE", "Certificate", "WrongState", "check_models", "read_certificate", "survival_of"]

#: what makes a folder one of a certificate
FILE = "certificate.json"

#: of 1, 2, 5, 10, ... ps those are shown that are at least this part of the time that was simulated
_SHORTEST = 0.02


@dataclass(frozen=True)
class WrongState:
    """First wrong state of a simulation.

    Args:
        model: name of the model.
        simulation: number of the simulation, counted from 0.
        time_ps: when the simulation failed, ps.
        right_ps: time of the last state before that is known to be right, ps.
        reason: why the state is wrong.
        deviation: errors of energy and force over their limits, None where they are not known.
        atoms: the state; None if the file of states is not there.
    """

    model: str
    simulation: int
    time_ps: float
    right_ps: float
    reason: str
    deviation: tuple[float | None, float | None]
    atoms: Atoms | None


@dataclass(frozen=True)
class Certificate:
    """A certificate as it lies in its folder.

    Args:
        folder: its folder.
        settings: what was done.
        conditions: of the simulations.
        models: what was found for each model, by name.
        reference_check: whether the reference method is that of the data, in words.
    """

    folder: Path
    settings: Mapping[str, Any]
    conditions: Conditions
    models: Mapping[str, Mapping[str, Any]]
    reference_check: str = ""

    @property
    def title(self) -> str:
        """What was simulated."""
        return f"{self.conditions.time_ps:g} ps {self.conditions.described}"

    @property
    def statements(self) -> dict[str, str]:
        """One sentence for each model, with judge and criteria."""
        return {
            name: f"{statement(self.conditions, record)}; judged by {self.settings['reference']}: energies within "
            f"{record['limits']['energy']:g} thermal fluctuations, forces on atoms within {record['limits']['force']:g} "
            "thermal forces"
            for name, record in self.models.items()
        }

    @property
    def method(self) -> str:
        """How the simulations were made and judged, in sentences."""
        record, conditions, settings = next(iter(self.models.values())), self.conditions, self.settings
        limits = record["limits"]
        split = f", partition “{settings['split']}”" if settings.get("split") else ""
        friction = (
            f" The friction of the thermostat is {conditions.friction:g} per fs." if conditions.temperature else ""
        )
        at = " at the start" if conditions.end_temperature else ""
        newest = ", the state that is newest to the model" if NOVELTY in record else ""
        forces = ", ".join(f"{chemical_symbols[int(z)]} {x:.3g}" for z, x in limits["force_ev_per_ang"].items())
        return (
            f"Each model was simulated {record['simulations']} times for {conditions.time_ps:g} ps from frames of "
            f"{settings['data']}{split}.{friction} Judge is the reference method, {settings['reference']}, at the end of "
            f"each simulation, its closest contact, its largest force{newest} and {limits['n_checks']} states between; the "
            f"first wrong state is found by bisection, to {conditions.time_ps / conditions.n_states:.3g} ps. A state is "
            f"wrong if the energy since the start is off by more than {limits['energy']:g} thermal fluctuations of the "
            f"potential energy ({1000.0 * limits['energy_ev']:.0f} meV times the square root of the number of atoms that "
            f"move{at}), or the force on an atom by more than {limits['force']:g} times the thermal force on its element "
            f"({forces} eV/Å{at}). "
            "A simulation has also failed if it has exploded, if its total energy is not conserved at constant energy, or "
            "if its temperature is far above that of its thermostat."
        )

    @property
    def table(self) -> Table:
        """Failures by kind, bounds, survival at some times and what it took, a column for each model."""
        names, records = list(self.models), list(self.models.values())
        kinds = [Counter(one["reason"] for one in record["outcomes"] if one["reason"]) for record in records]
        curves = [survival_of(record) for record in records]
        rows = [
            ranked("simulations that fail", [one["failures"] for one in records]),
            *(
                (f"of these: {kind}", [str(one[kind]) for one in kinds], [False] * len(names))
                for kind in sorted(sum(kinds, Counter()))
            ),
            ("first failure (ps)", [format_number(one["first_failure_ps"]) for one in records], [False] * len(names)),
            ranked("share that fails, at most (%)", [100.0 * one["share_failing_at_most"] for one in records]),
            ranked("failures per ns, at most", [one["failures_per_ns_at_most"] for one in records]),
        ]
        if self.conditions.end_temperature is not None:
            rows.insert(-2, self._temperatures(records))
        for time in _times(self.conditions.time_ps):
            at = [curve.at(time) for curve in curves]
            shown = ["{:.0f} ({:.0f} to {:.0f})".format(*(100.0 * x for x in one)) for one in at]
            rows.append(ranked(f"survival to {time:g} ps (%)", [share for share, _, _ in at], True, shown=shown))
        for factor in (f for f in records[0].get("failures_with_other_limits", {}) if f != "1"):
            counts = [format_number(one["failures_with_other_limits"][factor]) for one in records]
            rows.append((f"simulations that fail with limits × {factor}", counts, [False] * len(names)))
        rows.append(("reference calculations", [str(one["labels"]) for one in records], [False] * len(names)))
        return Table(f"{records[0]['simulations']} simulations of each model", names, rows)

    def _temperatures(self, records: Sequence[Mapping[str, Any]]) -> tuple[str, list[str], list[bool]]:
        """Of a ramp: where it fails first."""
        values = []
        for record in records:
            first = first_failure(record)
            values.append(None if first is None else self.conditions.thermostat_before(first["state"]))
        return "temperature at the first failure (K)", list(map(format_number, values)), [False] * len(values)

    @property
    def wrong_states(self) -> list[WrongState]:
        """First wrong state of each simulation that has failed, models in turn, the earliest first."""
        found = []
        for name, record in self.models.items():
            failed = [(i, one) for i, one in enumerate(record["outcomes"]) if one["state"] is not None]
            file = self.folder / name / "first_wrong.traj"
            frames = list(ase.io.iread(file)) if file.is_file() else []
            if frames and [atoms.info.get("simulation") for atoms in frames] != [i for i, _ in failed]:
                raise ValueError(
                    f"the states in '{file}' are not those of the simulations that have failed; it is of another "
                    "certificate. The command that made this one writes it again."
                )
            states = []
            for (i, one), atoms in zip_longest(failed, frames):
                energy, force = one["deviations"].get(str(one["state"]), (None, None))
                time, right = one["failed_ps"], one["right_ps"]
                states.append(WrongState(name, i, time, right, str(one["reason"]), (energy, force), atoms))
            found += sorted(states, key=lambda state: state.time_ps)
        return found


def read_certificate(folder: str | Path) -> Certificate:
    """Read the folder that ``spkdt certify`` wrote.

    Raises:
        FileNotFoundError: if the folder has no certificate.
        ValueError: if it is not readable.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        begun = (file.parent / "settings.json").is_file() and not (file.parent / "force_error.csv").is_file()
        how = "it was interrupted; the same command ends it" if begun else "make one with spkdt certify MODEL DATA.db"
        raise FileNotFoundError(f"'{folder}' is not the folder of a certificate: it has no {FILE} ({how} --out DIR).")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Conditions)}
        settings, models = content["settings"], content["models"]
        conditions = Conditions(**{key: value for key, value in settings["conditions"].items() if key in known})
        for record in models.values():
            statement(conditions, record)
        check = content.get("reference_check", {}).get("message", "")
        certificate = Certificate(file.parent, settings, conditions, models, check)
        certificate.statements, certificate.method, certificate.table  # noqa: B018 - all that is shown of it can be said
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError(f"'{file}' is not what spkdt certify writes ({error!r}); write it again.") from error
    return certificate


def check_models(certificates: Iterable[Certificate], settings: Mapping[str, Any]) -> list[str]:
    """Refuse certificates of other model files than those of the same name in an evaluation.

    Args:
        certificates: what is shown beside the evaluation.
        settings: of the evaluation.

    Returns:
        names of models, with the folder of the certificate, of which it cannot be told.

    Raises:
        ValueError: if a model of the same name is another file.
    """
    unknown = []
    evaluated = settings.get("model_sha256", {})
    for one in certificates:
        certified = one.settings.get("model_sha256", {})
        for name in (name for name in one.models if name in settings["models"]):
            if name not in certified or name not in evaluated:
                unknown.append(f"{name} ({one.folder})")
            elif certified[name] != evaluated[name]:
                raise ValueError(
                    f"'{one.folder}' certifies another file as '{name}' ({one.settings['models'][name]}, SHA-256 "
                    f"{certified[name][:12]}) than was evaluated ({settings['models'][name]}, {evaluated[name][:12]}). "
                    f"Certify the model that was evaluated, or call one of them otherwise (NAME=MODEL)."
                )
    return unknown


def survival_of(record: Mapping[str, Any]) -> Survival:
    """Survival of a model, from the outcomes of its simulations.

    Args:
        record: of the model in ``certificate.json``.
    """
    outcomes = record["outcomes"]
    return survival([one["failed_ps"] for one in outcomes], [one["simulated_ps"] for one in outcomes])


def _times(longest: float) -> list[float]:
    """1, 2, 5, 10, ... ps within what was simulated, and its end."""
    series = [digit * 10.0**power for power in range(-4, 7) for digit in (1.0, 2.0, 5.0)]
    return [time for time in series if _SHORTEST * longest <= time < longest] + [longest]
