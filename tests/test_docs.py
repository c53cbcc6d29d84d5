"""The documentation says what the code does."""

import ast
import asyncio
import contextlib
import inspect
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_collections import beir_folder

ROOT = Path(__file__).parent.parent
CODE = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def test_generated_pages_are_up_to_date(tmp_path):
    """Generating the reference again changes nothing; else run `python docs/generate.py`."""
    before = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
    code = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import generate\n"
        "for name, page in generate.PAGES.items():\n"
        "    pathlib.Path(sys.argv[2], name).write_text(page(), encoding='utf-8')"
    )
    command = [sys.executable, "-c", code, str(ROOT / "docs"), str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=120)
    for path in tmp_path.glob("*.md"):
        assert path.read_text(encoding="utf-8") == before[path.name], path.name


def test_every_page_is_in_the_navigation():
    """No page of the site is unreachable."""
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = set(re.findall(r"[\w/-]+\.md", nav))
    docs = ROOT / "docs"
    assert {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} == named


def test_links_between_pages_lead_somewhere():
    """Every relative link of the pages, those at the top included, names a file that exists."""
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_source_key_is_listed():
    """Docstrings and pages cite papers by keys that docs/sources.md resolves."""
    known = set(
        re.findall(r"^\| (\w+\d{4}) ", (ROOT / "docs/sources.md").read_text(), re.MULTILINE)
    )
    cited = {
        key
        for path in (ROOT / "rerank_plugins").rglob("*.py")
        for key in re.findall(r"\b([a-z]{3,}(?:19|20)\d\d)\b", path.read_text(encoding="utf-8"))
    }
    assert cited <= known


def printed(block: str, names: dict[str, object]) -> str:
    """Run a block, top-level await included, and return what it prints."""
    code = compile(block, "<documentation>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        answer = eval(code, names)
        if inspect.iscoroutine(answer):
            asyncio.run(answer)
    return out.getvalue()


def promised(block: str) -> str:
    """Return the output that a block promises: its lines that are nothing but comment."""
    lines = [line[2:] for line in block.splitlines() if line.startswith("# ")]
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/quickstart.md",
        "docs/drift.md",
        "docs/evaluation.md",
        "docs/llama-index.md",
        "docs/langchain.md",
        "docs/haystack.md",
    ],
)
def test_the_examples_of_a_page_run_and_print_what_they_say(page, tmp_path, monkeypatch):
    """Blocks of Python on a page run from top to bottom and print their comments."""
    beir_folder(tmp_path / "my-collection")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = CODE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        assert printed(block, names) == promised(block)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name
)
def test_an_example_is_short_and_prints_what_its_comment_says(path):
    """Examples have at most 40 lines; what their last comment lines show is in the output."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
    done = subprocess.run(
        [sys.executable, path],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "COLUMNS": "80"},
    )
    expected = [line[2:] for line in lines if line.startswith("# ")]
    assert expected
    for line in expected:
        assert line in done.stdout
