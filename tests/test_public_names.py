"""The public names, and nothing more."""

import ast
import inspect
import types

import rerank_plugins

PUBLIC = {
    "Budget",
    "Candidate",
    "Hit",
    "Policy",
    "Request",
    "RerankError",
    "Reranker",
    "Result",
    "Scorer",
    "Stage",
    "load",
}


def test_the_public_names_are_those_of_the_design():
    """`__all__` is the promised list, in alphabetical order."""
    assert set(rerank_plugins.__all__) == PUBLIC
    assert list(rerank_plugins.__all__) == sorted(rerank_plugins.__all__)


def test_nothing_else_is_bound():
    """The package binds its public names and its modules, nothing by accident."""
    bound = {
        name
        for name, value in vars(rerank_plugins).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert bound == set(rerank_plugins.__all__)


def test_the_init_module_holds_imports_only():
    """`__init__` has a docstring, imports and `__all__`: no logic."""
    body = ast.parse(inspect.getsource(rerank_plugins)).body[1:]
    assert all(isinstance(node, ast.ImportFrom | ast.Assign) for node in body)


def test_every_public_name_says_what_it_is():
    """Each public class and function has a docstring of its own."""
    for name in rerank_plugins.__all__:
        assert inspect.getdoc(getattr(rerank_plugins, name)), name
