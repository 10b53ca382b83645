"""All settings, from the configs and the comments in them: one page for ``spktrain``, one for ``spkmd``."""

import re
from pathlib import Path

from .markdown import cell

ROOT = Path(__file__).parents[2] / "configs"
_LINE = re.compile(r"( *)(- )?([\w.]+):(?: (.*))?$")

#: what a group of configs is, by its first folders; the longest that fits counts
_INTRODUCTIONS = {
    "experiment": "An experiment sets all that a training needs; `experiment=NAME` chooses it. The rest is as below.",
    "data": "Where windows come from. `data=NAME` chooses one.",
    "data/splitting": "How trajectories are divided into training, validation and test. `data/splitting=NAME` chooses one.",
    "task": "The training itself: rollouts, losses, optimiser.",
    "task/gradient": "How far gradients go back in time. `task/gradient=NAME` chooses one.",
    "task/stress": "`task/stress=trained` trains the stress, too.",
    "callbacks": "What happens during a training. `callbacks=[NAME,NAME]` chooses those that run.",
    "logger": "Where numbers of a training are written, beside the loggers of SchNetPack.",
    "model": "What is trained, beside the models of SchNetPack.",
    "model/representation": "The network, beside those of SchNetPack. `model/representation=NAME` chooses one.",
}


def files(programme: str) -> dict[str, list[Path]]:
    """Configs of a program by group: ``spktrain`` or ``spkmd``."""
    root = ROOT / "md" if programme == "spkmd" else ROOT
    found: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*.yaml")):
        parts = file.relative_to(root).parts
        if programme == "spktrain" and parts[0] == "md":
            continue
        found.setdefault("/".join(parts[:-1]), []).append(file)
    return found


def entries(text: str, prefix: str) -> list[tuple[str, str, str]]:
    """Keys with a value or a comment, as on the command line, with value and comment.

    Args:
        text: of a config.
        prefix: of its group, with a dot at its end; empty for a config of the whole program.
    """
    found: list[tuple[str, str, str]] = []
    path: list[tuple[int, str]] = []
    items: dict[str, int] = {}
    above: list[str] = []
    for line in text.splitlines():
        code, mark, comment = ("", "#", line.lstrip()[1:]) if line.lstrip().startswith("#") else line.partition(" # ")
        if not code.strip():
            above = [*above, comment.strip()] if mark else []
            continue
        match = _LINE.match(code.rstrip())
        if match is None:  # an item of a plain list
            item = re.match(r"( *)- (.*\S)", code)
            key = prefix + ".".join(name for at, name in path if item is None or at < len(item[1]))
            if item and key.removeprefix(prefix).split(".")[0] != "defaults":
                before = found.pop() if found and found[-1][0] == key else (key, "", "")
                found.append((key, f"[{', '.join([*filter(None, [before[1].strip('[]')]), item[2]])}]", before[2]))
            continue
        indent = len(match[1]) + len(match[2] or "")
        path = [one for one in path if one[0] < (len(match[1]) if match[2] else indent)]
        if match[2]:  # the first key of an item of a list
            place = ".".join(name for _, name in path)
            items[place] = items.get(place, -1) + 1
            path.append((len(match[1]), str(items[place])))
        path.append((indent, match[3]))
        key, value = ".".join(name for _, name in path), (match[4] or "").strip()
        words = comment.strip() if mark else " ".join(above)
        if key.split(".")[0] != "defaults" and (value or words):
            found.append((prefix + key, value, words))
        above = []
    return found


def description(text: str) -> str:
    """The comment at the head of a config."""
    lines = []
    for line in text.splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    return " ".join(lines)


def _section(group: str, file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8")
    everywhere = "@package _global_" in text or not group
    prefix = "" if everywhere else group.replace("/", ".") + "."
    if group == "callbacks" or group == "logger":
        prefix = f"{group}."
    head = description(text)
    body = "\n".join(text.splitlines()[len(re.match(r"(?:#.*\n)*", text)[0].splitlines()) :])
    lines = [f"### `{group}={file.stem}`" if group else f"### `{file.name}`", "", *([cell(head), ""] if head else [])]
    rows = [(key, value, words) for key, value, words in entries(body, prefix) if not key.endswith("_convert_")]
    if rows:
        lines += ["| key | value | meaning |", "|---|---|---|"]
        lines += [f"| `{key}` | {f'`{value}`' if value else ''} | {cell(words)} |" for key, value, words in rows]
        lines.append("")
    return lines


def page_of(programme: str) -> str:
    """All settings of a program."""
    lines = [f"# Settings of {programme}", ""]
    lines += [
        f"Made of the comments in the configs. Every key can be set behind `{programme}` as `key=value`; one that is not "
        "there yet needs a `+` in front (`+seed=0`), and `~key` takes one out.",
        "",
    ]
    for group, some in files(programme).items():
        lines += [f"## {group or 'The program'}", ""]
        if programme == "spktrain" and group in _INTRODUCTIONS:
            lines += [_INTRODUCTIONS[group], ""]
        for file in some:
            lines += _section(group, file)
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """One page for each program."""
    return {f"settings_{programme}.md": page_of(programme) for programme in ("spktrain", "spkmd")}
