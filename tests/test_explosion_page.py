"""The commands of the page on exploding simulations run one after the other, each with what the one before has made."""

import re
import sys

import pytest
from helpers.documents import ROOT

sys.path.append(str(ROOT / "docs"))

from run_explosion import KEPT, commands, run, said

#: option or key -> value of a run of seconds
SHORT = {
    "callbacks.budget.seconds": "6", "callbacks.on_policy.goal.until_ps": "0.1", "--time": "0.1", "--number": "2",
    "--states": "4", "--steps": "20", "--every": "10", "--relabel-every": "20",
}  # fmt: skip
FEW = ["trainer.max_epochs=1", "trainer.limit_train_batches=60", "data.max_val_windows=2", "data.max_test_windows=2"]
OF_HARDENING = [
    "callbacks.on_policy.goal.begin_ps=0.1", "callbacks.on_policy.simulations.interval_ps=0.05",
    "callbacks.on_policy.goal.max_labels=20",
]  # fmt: skip


def shortened(words):
    found = list(words)
    for i, word in enumerate(words):
        key, equal, _ = word.partition("=")
        if equal and key in SHORT:
            found[i] = f"{key}={SHORT[key]}"
        elif word in SHORT:
            found[i + 1] = SHORT[word]
    if words[0] != "spktrain":
        return found
    return found + FEW + (OF_HARDENING if "experiment=dt_last" in words else [])


def test_commands_are_found_and_shortened():
    found = commands()
    assert [words[0] for words in found] == ["spktrain", "spkdt", "spkdt", "spktrain", "spkdt", "spkdt"]
    assert all(any(word.partition("=")[0] in SHORT for word in words) for words in found[1:5])
    assert shortened(["spkdt", "x", "--time", "10"]) == ["spkdt", "x", "--time", "0.1"]


def test_the_page_shows_what_was_kept():
    text = (ROOT / "docs" / "explosion.md").read_text(encoding="utf-8")
    shown = re.findall(r"(?<=explosion/)[\w.]+", text)
    assert sorted(shown) == sorted(file.name for file in KEPT.iterdir())
    assert all((KEPT / name).stat().st_size > 0 for name in shown)


def test_what_is_kept_of_an_output():
    printed = "[x] - hardening: the goal is reached, in round 3 after 4 rounds and 5 labels of m; stored is x\nno\n"
    assert said(printed + " stage  epochs\n 1  2\n\nmodel: x\n") == (
        "hardening: the goal is reached, in round 3 after 4 rounds and 5 labels of m; stored is x\n\n stage  epochs\n 1  2\n"
    )
    assert said("'m' is a pickle: loading it\nsafe\n") == "safe\n"


@pytest.mark.slow
def test_they_run(tmp_path):
    pytest.importorskip("tblite")
    for words in map(shortened, commands()):
        run(words, tmp_path)
    assert (tmp_path / "certificate" / "survival.png").exists()
    assert "hardened" in (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
