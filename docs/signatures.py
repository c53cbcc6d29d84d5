"""The page of the Python interface: every public name as its source spells it."""

import ast
import inspect
import textwrap
from collections.abc import Iterator

import rerank_plugins

_WIDTH = 88


def python() -> list[str]:
    """Describe every public name: signature, docstring, public methods."""
    lines = ["# Python", "", "Everything public is imported from `rerank_plugins`."]
    for name in rerank_plugins.__all__:
        found = getattr(rerank_plugins, name)
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(found))).body
        lines += ["", f"## {name}", ""]
        if isinstance(node, ast.ClassDef):
            lines += [*_class(node), "", *_story(node)]
            lines += [line for one in _methods(node) for line in one]
        elif isinstance(node, ast.FunctionDef):
            lines += ["```python", *_function(node), "```", "", *_story(node)]
    return lines


def _class(node: ast.ClassDef) -> list[str]:
    """Show a record by its fields, anything else by how it is constructed."""
    fields = [ast.unparse(one) for one in node.body if isinstance(one, ast.AnnAssign)]
    made = next((one for one in node.body if getattr(one, "name", "") == "__init__"), None)
    bases = ", ".join(ast.unparse(one) for one in node.bases)
    if isinstance(made, ast.FunctionDef):
        shown = _call(node.name, made)
    else:
        shown = [f"class {node.name}({bases})" if bases else f"class {node.name}"]
        shown += [f"    {one}" for one in fields]
    return ["```python", *shown, "```"]


def _methods(node: ast.ClassDef) -> Iterator[list[str]]:
    for one in node.body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name[0] != "_":
            heading = ["", f"### {node.name}.{one.name}", ""]
            if any(ast.unparse(mark) == "property" for mark in one.decorator_list):
                yield [*heading, *_story(one)]
            else:
                yield [*heading, "```python", *_function(one), "```", "", *_story(one)]


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    *lines, last = _call(node.name, node)
    return [
        f"{word} {line}" if at == 0 else line for at, line in enumerate([*lines, last + result])
    ]


def _call(name: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Write the parameters, one a line where they are many; `self` goes without saying."""
    taken = node.args
    taken.args = [one for one in taken.args if one.arg not in {"self", "cls"}]
    single = f"{name}({ast.unparse(taken)})"
    if len(single) <= _WIDTH:
        return [single]
    return [f"{name}(", *(f"    {one}," for one in _parameters(taken)), ")"]


def _parameters(taken: ast.arguments) -> Iterator[str]:
    gap = [None] * (len(taken.args) - len(taken.defaults))
    for one, default in zip(taken.args, [*gap, *taken.defaults], strict=True):
        yield ast.unparse(one) + (f" = {ast.unparse(default)}" if default else "")
    if taken.kwonlyargs:
        yield "*"
    for one, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True):
        yield ast.unparse(one) + (f" = {ast.unparse(default)}" if default else "")


def _story(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Give the docstring, its doctest as a block of Python."""
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    story, prompt, example = text.partition(">>> ")
    lines = [story.strip()]
    if prompt:
        lines += ["", "```pycon", prompt + example, "```"]
    return lines
