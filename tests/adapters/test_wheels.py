"""What is shipped: each distribution's wheel holds what it should and works from that alone."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
UV = Path(sys.executable).with_name("uv")
OLDEST = Path(__file__).with_name("oldest.txt").read_text(encoding="utf-8")

LEAVES = {
    "llama-index": "llama_index/postprocessor/rerank_plugins",
    "langchain": "langchain_rerank_plugins",
    "haystack": "haystack_integrations/components/rankers/rerank_plugins",
}
USES = {
    "llama-index": """
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.rerank_plugins import RerankPluginsRerank
nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("a blue hen", "a red fox")]
print(RerankPluginsRerank(top_n=1).postprocess_nodes(nodes, query_str="red fox")[0].text)
""",
    "langchain": """
from langchain_core.documents import Document
from langchain_rerank_plugins import RerankPluginsCompressor
documents = [Document(text) for text in ("a blue hen", "a red fox")]
print(RerankPluginsCompressor().compress_documents(documents, "red fox")[0].page_content)
""",
    "haystack": """
from haystack import Document
from haystack_integrations.components.rankers.rerank_plugins import RerankPluginsRanker
documents = [Document(content=text) for text in ("a blue hen", "a red fox")]
print(RerankPluginsRanker().run(query="red fox", documents=documents)["documents"][0].content)
""",
}


def _run(*command: object, **options) -> str:
    done = subprocess.run(
        [str(one) for one in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _project(adapter: str) -> dict:
    path = ROOT / "adapters" / adapter / "pyproject.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """Build every distribution's wheel."""
    folder = tmp_path_factory.mktemp("wheels")
    _run(UV, "build", "--quiet", "--all-packages", "--wheel", "--out-dir", folder, cwd=ROOT)
    return folder


def _wheel(wheels: Path, name: str) -> Path:
    (path,) = wheels.glob(f"{name.replace('-', '_')}-[0-9]*.whl")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("adapter", LEAVES)
def test_a_wheel_holds_the_package_its_licence_and_its_readme(wheels, adapter):
    """Only the leaf package ships, typed; the namespaces above it stay without __init__."""
    project = _project(adapter)
    with zipfile.ZipFile(_wheel(wheels, project["name"])) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        described = archive.read(metadata).decode()
    leaf = LEAVES[adapter]
    assert {f"{leaf}/__init__.py", f"{leaf}/py.typed"} <= set(names)
    assert all(name.startswith(f"{leaf}/") or ".dist-info/" in name for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    readme = (ROOT / "adapters" / adapter / "README.md").read_text(encoding="utf-8")
    assert readme.strip() in described


@pytest.mark.slow
@pytest.mark.parametrize("adapter", LEAVES)
def test_an_adapter_works_from_its_wheel_alone(wheels, adapter, tmp_path):
    """In an empty environment, the wheel and the core's are all that a user installs."""
    python = tmp_path / "venv" / "bin" / "python"
    _run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    both = [_wheel(wheels, _project(adapter)["name"]), _wheel(wheels, "rerank-plugins")]
    _run(UV, "pip", "install", "--quiet", "--python", python, *both, cwd=tmp_path)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = _run(python, "-c", USES[adapter], cwd=tmp_path, env=clean)
    assert answer.split("\n")[0] == "a red fox"


@pytest.mark.parametrize("adapter", LEAVES)
def test_the_oldest_tested_version_is_the_lower_bound(adapter):
    """What `make test` runs the adapters against is what they declare."""
    name, floor = re.match(r"([\w-]+)>=([\d.]+),", _project(adapter)["dependencies"][0]).groups()
    (tested,) = re.findall(rf"^{name}==([\d.]+)$", OLDEST, flags=re.MULTILINE)
    assert tested.startswith(f"{floor}.")


def test_no_package_shadows_a_frameworks_namespace():
    """`adapters` and the namespaces have no __init__: they share their names with others."""
    for adapter, leaf in LEAVES.items():
        package = ROOT / "adapters" / adapter / leaf
        above = [folder for folder in package.parents if folder.is_relative_to(ROOT / "adapters")]
        assert not any((folder / "__init__.py").exists() for folder in above)
