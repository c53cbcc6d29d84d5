"""The page of the Python interface: every public name as its source spells it."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from types import ModuleType

import rerank_plugins
from rerank_plugins.serving import adapter_support, shared_engine

_WIDTH = 88


def python() -> list[str]:
    """Describe every public name: signature, docstring, public methods."""
    lines = ["# Python", "", "Everything public is imported from `rerank_plugins`."]
    lines += _names(rerank_plugins, "##")
    lines += ["", "## For adapters", "", "An adapter of another framework may import these, too."]
    for module in (shared_engine, adapter_support):
        lines += ["", f"### {module.__name__}", "", *_names(module, "####")]
    return lines


def _names(module: ModuleType, heading: str) -> Iterator[str]:
    """Describe what a module exports, each name under a heading."""
    for name in module.__all__:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(getattr(module, name)))).body
        yield from ("", f"{heading} {name}", "")
        if isinstance(node, ast.ClassDef):
            yield from (*_class(node), "", *_story(node))
            for method in _methods(node, f"{heading}#"):
                yield from method
        elif isinstance(node, ast.FunctionDef):
            yield from ("```python", *_function(node), "```", "", *_story(node))


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


def _methods(node: ast.ClassDef, mark: str) -> Iterator[list[str]]:
    for one in node.body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name[0] != "_":
            heading = ["", f"{mark} {node.name}.{one.name}", ""]
            if any(ast.unparse(word) == "property" for word in one.decorator_list):
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
    """Return the docstring, its fields as a list and its doctest as a block of Python."""
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    story, prompt, example = text.partition(">>> ")
    lines = [*_listed(story.strip().splitlines(), _spelled(node))]
    if prompt:
        lines += ["", "```pycon", prompt + example, "```"]
    return lines


def _listed(lines: list[str], names: set[str]) -> Iterator[str]:
    """Write the lines `name: meaning` of fields and parameters as items of a list."""
    for line in lines:
        name, colon, meaning = line.partition(": ")
        yield f"* `{name}`: {meaning}" if colon and name in names else line


def _spelled(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Return the names of a class's fields, or of what is given to a function or constructor."""
    fields = {ast.unparse(part.target) for part in node.body if isinstance(part, ast.AnnAssign)}
    made = [part for part in node.body if getattr(part, "name", "") == "__init__"]
    given = {
        name.arg
        for part in [node, *made]
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in [*part.args.args, *part.args.kwonlyargs]
    }
    return fields | given
