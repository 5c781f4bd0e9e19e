"""The tree of a template, changed so that all its work passes through the sandbox."""

from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

READ_WHOLE, READ_ITEMS, READ_TURNS = "read as a whole", "read by items", "read in turns"
"""Filters that pay for a value and return it."""


class _Paid(NodeTransformer):
    """Lets pass through the sandbox what jinja2 runs outside: loops, comparisons, slices, keys and `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 (NodeTransformer finds it by this name)
        self.generic_visit(node)
        node.iter = _filtered(node.iter, READ_TURNS)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filtered(node.expr, READ_WHOLE)
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, READ_WHOLE)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filtered(node.node, READ_ITEMS)
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        for pair in node.items:
            pair.key = _filtered(pair.key, READ_WHOLE, nodes.Const(len(node.items)))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        texts = [_filtered(part, "string") for part in node.nodes]
        joined = texts[0]
        for text in texts[1:]:
            joined = nodes.Add(joined, text, lineno=node.lineno)
        return joined

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:  # noqa: N802
        raise SecurityError("chat templates have no autoescape")


def paid_tree(tree: nodes.Template) -> nodes.Template:
    """Return a template's tree in which the filters above pay for what jinja2 runs outside the sandbox."""
    return _Paid().visit(tree)


def _filtered(value: Any, name: str, *given: nodes.Expr) -> nodes.Expr:
    return nodes.Filter(value, name, list(given), [], None, None, lineno=value.lineno)


class Generation(Extension):
    """The tag `generation`, which marks an assistant's text for others; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own form)

    def parse(self, parser: Parser) -> nodes.Node:
        """Return what stands between the tag and its end."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)
