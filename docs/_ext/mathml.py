"""Formulas as MathML, which browsers draw themselves: no script, no font, no network.

The converter is docutils' own. Sphinx has renderers that load a script from the network or call
LaTeX, and none of these is to be had everywhere.
"""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


def visit_inline(translator, node):
    """Write a formula within a line."""
    translator.body.append(convert(node, as_block=False))
    raise nodes.SkipNode


def visit_block(translator, node):
    """Write a formula of its own."""
    translator.body.append(f'<div class="math-block">{convert(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def convert(node, as_block):
    """Turn the LaTeX of a node into MathML; a warning, and the LaTeX, where it cannot be."""
    try:
        return tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        logger.warning("%s: %s", error, node.astext(), location=node)
        return nodes.literal("", node.astext()).astext()


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None)
    )
    return {"version": "1.0", "parallel_read_safe": True, "parallel_write_safe": True}
