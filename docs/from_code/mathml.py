"""Formulas as MathML, which browsers show by themselves: the pages need no network."""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)


def mathml(tex: str, block: bool) -> str:
    """A formula; several lines, or alignment marks, make a block of aligned lines.

    Raises:
        MathError: if the formula has a command that is not known.
    """
    tex = tex.strip().replace(r"\dots", r"\ldots")
    if block and ("&" in tex or r"\\" in tex) and r"\begin" not in tex:
        tex = rf"\begin{{aligned}} {tex} \end{{aligned}}"
    return tex2mathml(tex, as_block=block)


def _visit(translator: object, node: nodes.Element, block: bool) -> None:
    try:
        translator.body.append(mathml(node.astext(), block))  # type: ignore[attr-defined]  # of HTML translators
    except MathError as error:
        log.warning("the formula %s: %s", node.astext(), error, location=node)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it as the renderer ``mathml``."""
    app.add_html_math_renderer(
        "mathml",
        (lambda translator, node: _visit(translator, node, False), None),
        (lambda translator, node: _visit(translator, node, True), None),
    )
    return {"parallel_read_safe": True}
