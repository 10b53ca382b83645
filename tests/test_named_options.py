"""Every option that a message, a help text, a comment of a config, the documentation or the changelog names exists.

What is named is found in the text: ``group.key``, ``group.key=value``, ``group/sub=choice``, ``--option``. Whether it does
what is said there is tested in ``test_offered_values.py``.
"""

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers.documents import PAGES
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig
from typer.main import get_command

import benchmarks.commands
import benchmarks.study.commands
from spk_dt.cli import app
from spk_dt.evaluation.simulate import Protocol
from spk_dt.labels.unit_check import parse_unit
from spk_dt.trajectories.readers import extxyz, lammps

ROOT = Path(__file__).parents[1]
CALLBACKS = "callbacks=[checkpoint,lrmonitor,dt_ema,curriculum,budget,on_policy,visits]"
#: overrides with which all keys of our configs are there, by the module of the program's configs
COMPOSED = {
    "schnetpack.configs": [
        ["experiment=dt_egnn", CALLBACKS, "task/gradient=truncated", "task/stress=trained"],
        ["experiment=dt_egnn", "data=md17_trajectory"],
        ["experiment=dt_egnn_paper", "data=dtegnn", "data/splitting=time_block"],
        ["experiment=dt_finetune"],
        ["experiment=dt_egnn", "+callbacks.curriculum.rule.max_length=4", "+callbacks.curriculum.rule.epochs=4"],
        ["experiment=dt_on_policy"],
        ["experiment=dt_last"],
        ["experiment=dt_field_schnet"],
        ["experiment=dt_egnn", "hydra/launcher=submitit_slurm"],
    ],
    "schnetpack.md.md_configs": [
        ["callbacks=[checkpoint,hdf5,tensorboard,compare,stop_exploded]"],
        ["calculator=spk_ensemble", "system/initializer=frames"],
        ["calculator=orca", "system/initializer=maxwell_boltzmann"],
        ["calculator=lj", "+dynamics/barostat=nhc_iso", "+dynamics/thermostat=langevin"],
        ["+dynamics/thermostat=gle", "dynamics/integrator=rpmd"],
        ["+dynamics/thermostat=nhc"],
        ["+dynamics/thermostat=pi_nhc_local", "dynamics/integrator=rpmd"],
    ],
}
ROOTS = "callbacks|calculator|data|dynamics|globals|hydra|logger|model|run|system|task|trainer"
KEY = re.compile(rf"(?<![\w./*{{\"])(\+?)((?:{ROOTS})(?:\.[a-z_0-9*{{}},]*[a-z_0-9}}])+)(=?)")
GROUP = re.compile(rf"(?<![\w./])\+?((?:{ROOTS})(?:/[a-z_]+)+)=([a-z_0-9]+)")
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z_-]+)")
#: attributes of Python objects and files that look like keys
NO_KEYS = {
    "data.db", "data.npz", "system.properties", "system.positions", "system.momenta", "system.cells", "system.py",
    "model.parameters", "task.description", "task.completed", "task.total", "task.py", "run.py", "hydra.compose",
    "hydra.experimental", "hydra.utils",
}  # fmt: skip
#: options of programs that are not ours
OTHER_PROGRAMS = {
    *("cfg", "resolve", "help", "hydra-help", "install-completion", "logdir", "check", "gfn", "grad"),
}


def flat(node, prefix=""):
    """All keys of a config; those of the items of a list have 0 for its number."""
    keys = {prefix} if prefix else set()
    if isinstance(node, DictConfig) and not node._is_none():
        for key in node:
            child = node._get_node(key)
            keys |= flat(child, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(node, ListConfig) and not node._is_none() and not node._is_interpolation():
        for child in node._iter_ex(resolve=False):
            keys |= flat(child, f"{prefix}.0") if isinstance(child, DictConfig) else set()
    return keys


@cache
def known():
    """All keys, and the choices of all groups, of both programs."""
    keys, groups = set(), {}
    for module, cases in COMPOSED.items():
        name = "train" if module == "schnetpack.configs" else "config"
        with initialize_config_module(module, version_base="1.2"):
            loader = GlobalHydra.instance().config_loader()
            for overrides in cases:
                keys |= flat(compose(name, overrides=overrides, return_hydra_config=True))

            def walk(group, loader=loader):
                groups.setdefault(group, set()).update(loader.get_group_options(group))
                for sub in loader.list_groups(group):
                    walk(f"{group}/{sub}")

            for group in loader.list_groups(""):
                walk(group)
    return keys, groups


@cache
def options():
    return {
        name.removeprefix("--")
        for program in (app, benchmarks.commands.app, benchmarks.study.commands.app)
        for command in get_command(program).commands.values()
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    } | {"version"}


def wrong(text):
    """What a text names that does not exist."""
    keys, groups = known()
    found = []
    text = re.sub(r"\$\{(?:[a-z.]+:)?([a-z_.]+)[^}]*\}", r"\1", text)  # interpolations
    for plus, key, _ in KEY.findall(text):
        if key in NO_KEYS or re.search(r"\.(db|py|yaml|npz|hdf5|traj|extxyz|json|csv|md)(\.gz)?$", key):
            continue
        for one in expanded(re.sub(r"\.\d+(?=\.)", ".0", key)):
            pattern = re.compile(re.sub(r"\\\{\\\}|\\\*", "[a-z_0-9]+", re.escape(one)))
            parent = one.rpartition(".")[0]
            if not any(pattern.fullmatch(key) for key in keys) and not (plus and parent in keys):
                found.append(one)
    found += [f"{group}={choice}" for group, choice in GROUP.findall(text) if choice not in groups.get(group, ())]
    return found + [f"--{name}" for name in OPTION.findall(text) if name not in options() | OTHER_PROGRAMS]


def expanded(key):
    match = re.fullmatch(r"(.*)\{([a-z_,]+)\}(.*)", key)
    return [match[1] + part + match[3] for part in match[2].split(",")] if match else [key]


def texts(file):
    """What users read of a file: strings of Python code, docstrings among them, comments of configs, documents."""
    content = file.read_text()
    if file.suffix == ".yaml":
        return [" ".join(re.findall(r"#(.*)", content))]
    if file.suffix == ".md":
        return [content]
    nodes = list(ast.walk(ast.parse(content)))
    joined = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    found = ["".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values) for node in joined]
    parts = {id(part) for node in joined for part in node.values}
    plain = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in parts]
    return found + [node.value for node in plain if isinstance(node.value, str)]


FILES = [
    *sorted((ROOT / "spk_dt").rglob("*.py")),
    *sorted((ROOT / "configs").rglob("*.yaml")),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *PAGES,
    *sorted((ROOT / "tutorials").glob("*.py")),
]


def test_what_is_named_exists():
    found = {
        str(file.relative_to(ROOT)): names for file in FILES if (names := [n for t in texts(file) for n in wrong(t)])
    }
    assert found == {}


def test_names_are_found():
    """In many files, and of each kind."""
    everything = [text for file in FILES for text in texts(file)]
    assert sum(len(KEY.findall(text)) for text in everything) > 200
    assert sum(len(GROUP.findall(text)) for text in everything) > 20
    assert sum(len(OPTION.findall(text)) for text in everything) > 50


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("lower data.batch_sizes=3", ["data.batch_sizes"]),
        ("set task.scheduler_args.{factor,patiens}", ["task.scheduler_args.patiens"]),
        (
            f"callbacks.on_policy.labels.{'{}'}=3 or callbacks.on_policies.labels.{'{}'}",
            ["callbacks.on_policies.labels.{}"],
        ),
        ("take task/gradient=half, or task/gradient=full", ["task/gradient=half"]),
        ("give --time-stride or --timestep-fs", ["--time-stride"]),
        ("task.outputs.1.loss_weight=0, not task.outputs.1.loss_height=0", ["task.outputs.0.loss_height"]),
        ("+trainer.strategy=ddp, not trainer.strategy=ddp", ["trainer.strategy"]),
        ("trained with run.id=x, in data.db", []),
    ],
)
def test_a_wrong_name_is_seen(text, names):
    assert wrong(text) == names


PROGRAMS = {"spktrain": ("schnetpack.configs", "train"), "spkmd": ("schnetpack.md.md_configs", "config")}


def commands(text):
    """Those of `spktrain` and `spkmd` in a document: the program and its overrides, of a sweep the first values."""
    for block in re.findall(r"```bash\n(.*?)```", text.replace("\\\n", " "), re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] in PROGRAMS:
                single = [re.sub(r"(=[^\[{,]*),.*", r"\1", word) if "-m" in words else word for word in words[1:]]
                yield words[0], [word for word in single if not word.startswith("-")]


def missing(node):
    """Keys without a value that must have one."""
    if node._is_missing():
        return [node._get_full_key(None)]
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
        return [key for name in node for key in missing(node._get_node(name))]
    return []


def missing_of(program, overrides):
    module, name = PROGRAMS[program]
    with initialize_config_module(module, version_base="1.2"):
        return missing(compose(name, overrides=overrides))


@pytest.mark.parametrize("file", [ROOT / "README.md", *PAGES], ids=lambda file: file.name)
def test_commands_of_documents_have_all_that_they_need(file):
    found = [(program, missing_of(program, words)) for program, words in commands(file.read_text())]
    assert [(program, keys) for program, keys in found if keys] == []


def test_a_command_that_lacks_something_is_seen():
    [(program, words)] = commands("```bash\nspkmd calculator.model_file=m \\\n  system.molecule_file=s  # comment\n```")
    assert missing_of(program, words) == ["simulation_dir"]
    assert [words for _, words in commands("```bash\nspktrain -m +seed=0,1 'x=[1,2]'\n```")] == [["+seed=0", "x=[1,2]"]]


def help_of(command, option):
    return next(one.help for one in get_command(app).commands[command].params if f"--{option}" in one.opts)


def test_values_that_help_texts_list_are_those_that_are_taken():
    units = re.search(r"their unit: (.*)\.", help_of("convert", "velocity-unit"))[1]
    assert set(re.split(r", | or ", units)) == set(extxyz.VELOCITY_UNITS)
    styles = re.search(r"LAMMPS: (\w+) or (\w+),", help_of("convert", "lammps-units")).groups()
    assert set(styles) == set(lammps.UNITS)
    assert parse_unit(re.search(r"'([^']*)'(?!s)\.", help_of("evaluate", "energy-unit"))[1], "eV")
    assert parse_unit(re.search(r"'([^']*)'(?!s)\.", help_of("evaluate", "position-unit"))[1], "Ang")
    for device in re.findall(r"[a-z]+(?::\d)?(?=[ ,])", help_of("evaluate", "device")):
        assert str(torch.device(device)) == device
    for bits in re.findall(r"\b\d\d\b", help_of("evaluate", "precision")):
        assert Protocol(precision=int(bits)).precision == int(bits)
    for command in ("generate", "evaluate", "relabel"):
        assert re.search(r"tblite:\w+, or package\.module:Class", help_of(command, "reference"))
