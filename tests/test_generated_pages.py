"""Pages of the documentation that are made of the code: nothing is missing in them, and nothing is read wrongly."""

import re
import sys

import pytest
from docutils.utils.math import MathError
from helpers.documents import ROOT
from omegaconf import OmegaConf
from typer.main import get_command

from spk_dt.cli import app

sys.path.insert(0, str(ROOT / "docs"))
from from_code import commands, mathml, messages, settings


def keys(node, prefix=""):
    """Keys with a value, items of lists by their number."""
    found = set()
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value)):
            found |= keys(value, f"{prefix}{key}.")
        else:
            found.add(f"{prefix}{key}")
    return found


@pytest.mark.parametrize("programme", ["spktrain", "spkmd"])
def test_every_setting_has_its_row(programme):
    page = settings.page_of(programme)
    number = 0
    for group, files in settings.files(programme).items():
        for file in files:
            config = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
            config.pop("defaults", None)
            title = f"### `{group}={file.stem}`" if group else f"### `{file.name}`"
            section = page.partition(f"{title}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
            for key in keys(config):
                if not key.endswith("_convert_"):
                    assert re.search(rf"\| `(?:[\w.]+\.)?{re.escape(key)}` \|", section), (file, key)
                    number += 1
    assert number > {"spktrain": 250, "spkmd": 150}[programme]


def test_values_and_comments_of_settings():
    text = "# of the file\nkey: 1 # why\nouter:\n  inner: a # b # c\n  # above\n  other:\n    - _target_: x\n      name: y\n"
    text += "    - name: z\n  plain: # two\n    - a\n    - b\n"
    assert settings.description(text) == "of the file"
    assert settings.entries(text.partition("\n")[2], "data.") == [
        ("data.key", "1", "why"), ("data.outer.inner", "a", "b # c"), ("data.outer.other", "", "above"),
        ("data.outer.other.0._target_", "x", ""), ("data.outer.other.0.name", "y", ""), ("data.outer.other.1.name", "z", ""),
        ("data.outer.plain", "[a, b]", "two"),
    ]  # fmt: skip


def test_every_command_and_option_is_there():
    page = commands.page()
    for name, command in get_command(app).commands.items():
        section = page.partition(f"## spkdt {name}\n")[2].partition("\n## ")[0]
        for one in command.params:
            for option in (*one.opts, *one.secondary_opts):
                if option.startswith("-") and not getattr(one, "hidden", False):
                    assert option in section, (name, option)


SOURCE = """
_WAY = "Do this."

def f(path, n):
    reason = "it is wrong" if n else "it is missing"
    if n > 1:
        raise ValueError(f"'{path}' has {len(n)} of {n.number_of_atoms}: {reason}. {_WAY}")
    raise KeyError("a mistake of the program is left out")

def g(error):
    message = f"no file '{error}'; " + "give another one."
    raise FileNotFoundError(message) from error
"""


def test_messages_are_read_from_source():
    found = [one.text for one in messages.messages_of(SOURCE, "module")]
    assert found == [
        "'⟨path⟩' has ⟨n⟩ of ⟨number of atoms⟩: it is wrong / it is missing. Do this.",
        "no file '⟨error⟩'; give another one.",
    ]


def test_all_messages_of_the_package_are_there():
    """Of the errors of users whose text stands where they are raised, or in a name beside it."""
    found = messages.all_messages()
    assert sum(map(len, found.values())) > 600
    assert len(found) >= 13
    everything = " ".join(one.text for some in found.values() for one in some)
    assert "make_neighbors" not in everything
    for words in (
        "is no YAML file",
        "holds a run already",
        "the format of '⟨path⟩' is not known",
        "no model to start from",
    ):
        assert words in everything
    page = messages.page()
    assert "holds a run already" in page


def test_formulas_are_shown_without_a_network():
    found = mathml.mathml(r"x_{k+1} &= x_k \\ v &= \frac{F}{2m}\,\Delta t^2", True)
    assert found.count("<mtr>") == 2
    assert "<mfrac>" in found
    assert 'display="block"' in found
    assert "<msub>" in mathml.mathml("x_k", False)
    with pytest.raises(MathError):
        mathml.mathml(r"\nosuchcommand", False)
