"""docs/architecture.md and its picture say what the code does."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rerank_plugins.remote.providers import PROVIDERS
from rerank_plugins.testing.dialects import DIALECTS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rerank_plugins"
PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
# A path in backticks, a function or method of it behind a colon: `core/hits.py:rank`.
NAMED = re.compile(r"`([\w./-]+(?:/|\.(?:py|md|json|toml|yml|txt)))(?::([\w.]+))?`")
# The steps of docs/concepts.md, and the call of the pipeline that each of them is.
STEPS = {
    "shortlist": "choose",
    "residency": "permit",
    "plan": "plan_stages",
    "stages": "score",
    "rank": "rank",
    "cut": "cut",
}


def named(page):
    """Return the (path, function) pairs that a page names; the function is "" for a file alone."""
    return NAMED.findall((ROOT / page).read_text(encoding="utf-8"))


def found(path):
    """Return a path of the repository or, if there is none, of the package."""
    return next((top / path for top in (ROOT, PACKAGE) if (top / path).exists()), None)


def functions(path):
    """Return the functions, classes and methods of a module, methods as Class.method."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, kinds)]
    inner = {
        f"{outer.name}.{node.name}"
        for outer in top
        if isinstance(outer, ast.ClassDef)
        for node in outer.body
        if isinstance(node, kinds)
    }
    return {node.name for node in top} | inner


def section(title):
    """Return the text of a section of docs/architecture.md."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_function_that_a_page_names_exists(page):
    """A page for engineers names paths; none of them is gone."""
    assert named(page)
    for path, function in named(page):
        assert found(path) is not None, path
        assert not function or function in functions(found(path)), f"{path}:{function}"


def test_the_path_of_a_request_has_ten_lines_with_a_function_each():
    """The path names a function in every line, those of the pipeline in the order of its calls."""
    lines = re.findall(r"^\d+\. .*$", section("The path of a request"), re.MULTILINE)
    assert len(lines) == 10
    assert all(NAMED.search(line)[2] for line in lines)
    firsts = [NAMED.search(line).groups() for line in lines]
    start = firsts.index(("core/pipeline.py", "rerank"))
    called = calls(PACKAGE / "core/pipeline.py", "rerank")
    places = [called.index(function) for _, function in firsts[start + 1 :]]
    assert places == sorted(places)


def test_the_concepts_are_told_in_the_order_of_the_pipeline():
    """The steps of docs/concepts.md are calls of the pipeline, in its order."""
    steps = re.findall(r"^  (\w+)  ", (ROOT / "docs/concepts.md").read_text(), re.MULTILINE)
    assert steps == list(STEPS)
    called = calls(PACKAGE / "core/pipeline.py", "rerank")
    places = [called.index(function) for function in STEPS.values()]
    assert places == sorted(places)


def calls(path, function):
    """Return the names that a function calls, in the order of the lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = next(node for node in tree.body if getattr(node, "name", "") == function)
    found = [node for node in ast.walk(body) if isinstance(node, ast.Call)]
    found.sort(key=lambda node: (node.lineno, node.col_offset))
    return [ast.unparse(node.func).split(".")[-1] for node in found]


def test_every_room_is_explained():
    """Every module and folder at the top of the package has its line in the table."""
    told = set(re.findall(r"`([\w/]+(?:/|\.py))`", section("The rooms")))
    rooms = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__.py"} <= told


def test_the_picture_of_the_rooms_is_up_to_date():
    """Drawing the rooms again changes nothing; else run `python docs/rooms.py`."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import rooms; print(rooms.picture(), end='')"
    )
    command = [sys.executable, "-c", code, str(ROOT / "docs")]
    drawn = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert drawn.stdout == (ROOT / "docs/images/rooms.svg").read_text(encoding="utf-8")


def test_the_fake_server_speaks_for_every_provider():
    """A provider of the client's table has a dialect of the fake server, and the reverse."""
    assert set(PROVIDERS) == set(DIALECTS)
