"""The commands of the page on exploding simulations run one after the other, each with what the one before has made."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.documents import ROOT

#: option or key -> value of a run of seconds
SHORT = {
    "callbacks.budget.seconds": "6", "callbacks.on_policy.goal.until_ps": "0.1", "--time": "0.1", "--number": "2",
    "--states": "4", "--steps": "20", "--every": "10", "--relabel-every": "20",
}  # fmt: skip
FEW = ["trainer.max_epochs=1", "trainer.limit_train_batches=60", "data.max_val_windows=2", "data.max_test_windows=2"]
FEW += ["callbacks.on_policy.goal.begin_ps=0.1", "callbacks.on_policy.goal.max_labels=20"]


def commands():
    text = (ROOT / "docs" / "explosion.md").read_text(encoding="utf-8").replace("\\\n", " ")
    return [
        shlex.split(line) for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]


def shortened(words):
    found = list(words)
    for i, word in enumerate(words):
        key, equal, _ = word.partition("=")
        if equal and key in SHORT:
            found[i] = f"{key}={SHORT[key]}"
        elif word in SHORT:
            found[i + 1] = SHORT[word]
    return found + (FEW[: 6 if "experiment=dt_last" in words else 4] if words[0] == "spktrain" else [])


def test_commands_are_found_and_shortened():
    found = commands()
    assert [words[0] for words in found] == ["spktrain", "spkdt", "spkdt", "spktrain", "spkdt", "spkdt"]
    assert all(any(word.partition("=")[0] in SHORT for word in words) for words in found[1:5])
    assert shortened(["spkdt", "x", "--time", "10"]) == ["spkdt", "x", "--time", "0.1"]


@pytest.mark.slow
def test_they_run(tmp_path):
    pytest.importorskip("tblite")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for words in map(shortened, commands()):
        program = str(Path(sys.executable).with_name(words[0]))
        done = subprocess.run([program, *words[1:]], cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode in ((0, 3) if words[1] == "certify" else (0,)), (words, done.stderr[-2000:])
    assert (tmp_path / "certificate" / "survival.png").exists()
    assert "hardened" in (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
