"""Everything that is refused, with its remedy: the messages of all errors that users meet, collected from the source."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import spk_dt

from .api import summary
from .markdown import escaped

ROOT = Path(spk_dt.__file__).parent
#: errors of users; others are mistakes of programs
ERRORS = {
    "ValueError", "FileNotFoundError", "FileExistsError", "ImportError", "NoLabelError", "NotConvergedError", "OSError",
    "IncompleteFrameError", "ConnectionError", "RuntimeError", "ExplodedError", "DamagedArchiveError", "SystemExit",
    "TypeError",
}  # fmt: skip


class Message(NamedTuple):
    """What a user reads; values that are known when it is said are in ⟨⟩."""

    module: str
    line: int
    text: str


def _strings(tree: ast.AST) -> dict[str, ast.expr]:
    """Names that are given a text once, in a module or a function."""
    found: dict[str, ast.expr] = {}
    twice = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            twice |= {name} & set(found)
            found[name] = node.value
    return {name: value for name, value in found.items() if name not in twice}


def text_of(node: ast.expr | None, names: Mapping[str, ast.expr], depth: int = 0) -> str | None:
    """Text of an expression, None if it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(part, names, depth) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [text_of(one, names, depth) for one in (node.left, node.right)]
        return None if parts == [None, None] else "".join("⟨…⟩" if part is None else part for part in parts)
    if isinstance(node, ast.Name) and node.id in names and depth < 4:
        return text_of(names[node.id], {k: v for k, v in names.items() if k != node.id}, depth + 1)
    if isinstance(node, ast.IfExp):
        parts = [text_of(one, names, depth) for one in (node.body, node.orelse)]
        return " / ".join(part for part in parts if part) or None
    return None


def _part(part: ast.expr, names: Mapping[str, ast.expr], depth: int) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    known = text_of(part.value, names, depth)
    if known is not None and (isinstance(part.value, ast.Name) or len(known) > 12):
        return known
    words = re.sub(r"[^\w.]+", " ", ast.unparse(part.value)).strip().strip("_")
    last = re.split(r"[ .]", words)[-1] if "(" not in ast.unparse(part.value) else words.split(" ")[-1]
    return f"⟨{last.replace('_', ' ').strip() or '…'}⟩"


def messages_of(source: str, module: str) -> Iterator[Message]:
    """Messages in a source file, in its order, each once."""
    tree = ast.parse(source)
    outside = _strings(ast.Module(body=[one for one in tree.body if isinstance(one, ast.Assign)], type_ignores=[]))
    seen = set()
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef):
            continue
        names = outside | _strings(scope)
        for node in ast.walk(scope):
            call = node.exc if isinstance(node, ast.Raise) else node
            if not isinstance(call, ast.Call) or not call.args:
                continue
            kind = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if kind == "Finding":
                parts = [text_of(one, names) for one in call.args[2:4]]
                text = " ".join(part for part in parts if part)
            elif kind in ERRORS:
                text = text_of(call.args[0], names) or ""
            else:
                continue
            for one in [text] if text else _returned(call.args[0], tree, outside):
                one = " ".join(one.split())
                if len(one) > 20 and one not in seen:
                    seen.add(one)
                    yield Message(module, call.lineno, one)


def _returned(call: ast.expr, tree: ast.AST, outside: Mapping[str, ast.expr]) -> list[str]:
    """Texts that a function of the same module gives, if it is called for the message."""
    if not isinstance(call, ast.Call):
        return []
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    made = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef) and one.name == name]
    returns = [(one, node) for one in made for node in ast.walk(one) if isinstance(node, ast.Return)]
    return [text for one, node in returns if (text := text_of(node.value, outside | _strings(one)))]


def all_messages() -> dict[str, list[Message]]:
    """Messages by package."""
    found: dict[str, list[Message]] = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = ("spk_dt", *file.relative_to(ROOT).with_suffix("").parts)
        module = ".".join(part for part in parts if part != "__init__")
        package = ".".join(parts[:-1])
        found.setdefault(package, []).extend(messages_of(file.read_text(encoding="utf-8"), module))
    return {package: messages for package, messages in found.items() if messages}


def page() -> str:
    """All of them."""
    found = all_messages()
    number = sum(map(len, found.values()))
    lines = ["# Every message", ""]
    lines += [
        f"All {number} refusals, as they are in the source, and what `spkdt check` says of data. Values that are filled in "
        "are in ⟨⟩. Search for some words of yours; what to do is in the message itself. What `spkdt check` calls a note or "
        "a warning does not stop a training.",
        "",
    ]
    for package, messages in found.items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        lines += [f"## {package}", "", summary(folder / "__init__.py").replace("``", "`"), ""]
        lines += [
            f"- {escaped(one.text)} *({escaped(one.module.removeprefix(package).strip('.') or package)})*"
            for one in messages
        ]
        lines.append("")
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """The page of messages."""
    return {"messages.md": page()}
