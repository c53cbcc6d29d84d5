"""The shape of the package: few rooms, names that tell, small parts, and the names users hold."""

import ast
import importlib
import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from rerank_plugins import semconv
from rerank_plugins.config.schema import Settings
from rerank_plugins.records import Code

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rerank_plugins"
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = json.loads((ROOT / "tests/frozen/names.json").read_text(encoding="utf-8"))
MOST_MODULES, MOST_FOLDERS = 8, 13
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 450, 50

# File names of the past that only their authors understood, and the shapeless ones.
TELL_NOTHING = """
absorb adapting answering artefact asked auditing base beside cargo common destinations
detour errands fidelity fusing guarded guarding handler helpers manager misbehaving
misc noting observing pace parting places plain reading recall refusals resolve
retrieving rows shapes sharing shorter snapshots splits splitting staging standing
strangers tensors tools trial trunk utils waiting
"""
RIDDLES = re.compile(r"(Give|Say|Tell)\b")
PRIVATE = re.compile(
    r"\b(cargo|detours?|errands?|parted|standing|strangers|trunks?)\b", re.IGNORECASE
)
# Several rooms may have a file of one name, if each says the same thing of its own room.
SHARED_NAMES = {
    "calibrate": "the certifying of exits, and the command for it",
    "decoder": "exporting a decoder, and running it",
    "dialects": "what clients of our server speak, and what the fake server speaks",
    "exits": "stages made of exits, and a model marked with exits",
    "export": "a checkpoint to ONNX, and the command for it",
    "guard": "the guard, and how settings build it",
    "kserve": "the KServe protocol, as the client and as the fake server speak it",
    "options": "the options of the room's own subject",
    "read": "reading settings, and reading a graph",
    "residency": "the rules, and the gate that asks them before a stage sends",
    "run": "one run of the pipeline, of the server, and the command",
    "scorer": "the scorer of the room: ONNX, exits, remote",
    "tables": "what tables of settings are made of, and tables on the screen",
}
# What adapters, which are distributions of their own, may import of us.
SEAM = {"rerank_plugins.serving.shared_engine", "rerank_plugins.serving.adapter_support"}


def shown(path):
    """Return a path as the tests name it."""
    return path.relative_to(ROOT).as_posix()


def parsed(path):
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def test_the_top_of_the_package_is_seen_at_a_glance():
    """At most 8 modules and 13 folders lie side by side."""
    folders = [path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_MODULES
    assert len(folders) <= MOST_FOLDERS


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_file_name_tells_what_is_inside(path):
    """None of the names that readers had to look up, and no drawer for everything."""
    assert path.stem not in TELL_NOTHING.split()


def test_files_of_one_name_say_the_same_thing_of_their_rooms():
    """Two rooms share a file name only where SHARED_NAMES says why."""
    rooms = defaultdict(list)
    for path in MODULES:
        if not path.stem.startswith("__"):
            rooms[path.stem].append(shown(path))
    several = {name: paths for name, paths in rooms.items() if len(paths) > 1}
    assert several.keys() - SHARED_NAMES.keys() == set(), several
    assert SHARED_NAMES.keys() - several.keys() == set()


def docstrings(path):
    """Yield the (line, docstring) pairs of a module, its classes and functions."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(parsed(path)):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_docstring_is_plain_english(path):
    """It begins "Return ..." or "True if ...", and has no word that only its authors know."""
    for line, text in docstrings(path):
        assert not RIDDLES.match(text), f"line {line}: {text.splitlines()[0]}"
        assert not (found := PRIVATE.findall(text)), f"line {line}: {found}"


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_file_is_one_idea(path):
    """At most 450 lines; the table of telemetry names is a list and may be longer."""
    if path.name != "semconv.py":
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_function_fits_on_a_screen(path):
    """At most 50 lines, signature and docstring included."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {lines} lines"


def imported_by_adapters():
    """Yield (file, module, name) for every import of ours in the adapters."""
    for path in sorted((ROOT / "adapters").rglob("*.py")):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                found = [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = [(node.module or "", alias.name) for alias in node.names]
            else:
                continue
            for module, name in found:
                if module.split(".")[0] == "rerank_plugins":
                    yield shown(path), module, name


def test_adapters_import_only_documented_names():
    """Public names, and `__all__` of the two modules that are made for adapters."""
    found = list(imported_by_adapters())
    assert {file.split("/")[1] for file, _, _ in found} == {"haystack", "langchain", "llama-index"}
    for file, module, name in found:
        if module == "rerank_plugins":
            assert name in NAMES["paths"]["rerank_plugins"], f"{file}: {name}"
        else:
            assert module in SEAM, f"{file}: {module}"
            assert name in importlib.import_module(module).__all__, f"{file}: {name}"


def bound(path):
    """Return the names that a module defines or imports at its top level."""
    found = set()
    for node in parsed(path).body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize("module", NAMES["paths"])
def test_a_documented_path_stays(module):
    """What documentation and users import is where it was."""
    path = ROOT / module.replace(".", "/")
    # Read, not imported: Ray warns of its own while it is imported.
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert set(NAMES["paths"][module]) <= bound(file)


@pytest.mark.parametrize("module", ["rerank_plugins", "rerank_plugins.evaluation"])
def test_a_public_module_promises_no_more_and_no_less(module):
    """`__all__` is the pinned list."""
    assert sorted(importlib.import_module(module).__all__) == NAMES["paths"][module]


def test_the_loggers_stay():
    """Logging is configured by these names."""
    pattern = re.compile(r"getLogger\((.*?)\)")
    found = set()
    for path in MODULES:
        for name in pattern.findall(path.read_text(encoding="utf-8")):
            own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.add({"__name__": own, "semconv.SCOPE": semconv.SCOPE}.get(name, name.strip('"')))
    assert set(NAMES["loggers"]) <= found
    assert all(name.startswith("rerank_plugins") for name in found)


def test_the_keys_of_a_settings_file_stay():
    """Every table and key that a file may have, as the JSON Schema lists them."""
    schema = Settings.model_json_schema()
    assert sorted(schema["properties"]) == NAMES["settings"]
    tables = {
        name: sorted(table["properties"])
        for name, table in schema["$defs"].items()
        if "properties" in table
    }
    assert tables == NAMES["tables"]


def test_the_decision_codes_stay():
    """Programs and dashboards compare with these."""
    assert sorted(code.code for code in Code) == NAMES["codes"]


@pytest.mark.parametrize("kind", ["SPANS", "ATTRIBUTES", "METRICS"])
def test_the_names_of_telemetry_stay(kind):
    """Dashboards and alerts ask for these."""
    assert sorted(entry.name for entry in getattr(semconv, kind)) == NAMES[kind.lower()]
