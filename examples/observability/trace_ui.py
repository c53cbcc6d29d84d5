"""Start a local trace viewer (Phoenix), send it the RAG loop's traces, and look at them.

python trace_ui.py PYTHON                      # PYTHON runs rag.py; the viewer stays until Ctrl-C
python trace_ui.py PYTHON --pictures FOLDER    # take screenshots in a headless browser, then end
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

PORT = int(os.environ.get("TRACE_UI_PORT", "6006"))
URL = f"http://127.0.0.1:{PORT}"
_STARTS_S = 300.0
_STEP_MS = 60_000


@contextmanager
def viewer() -> Iterator[None]:
    """Run Phoenix on loopback, its data in a folder that goes with it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(PORT),
            "PHOENIX_GRPC_PORT": str(PORT + 1),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
            "PHOENIX_WORKING_DIR": folder,
        }
        with (Path(folder) / "log").open("w") as log:
            command = [sys.executable, "-m", "phoenix.server.main", "serve"]
            process = subprocess.Popen(
                command, env={**os.environ, **settings}, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                _wait(process)
                yield
            finally:
                process.terminate()
                process.wait(30)


def _wait(process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _STARTS_S
    while time.monotonic() < until and process.poll() is None:
        try:
            httpx.get(f"{URL}/healthz", timeout=5.0).raise_for_status()
        except httpx.HTTPError:
            time.sleep(1.0)
        else:
            return
    sys.exit(f"Phoenix does not answer at {URL}; is the port free?")


def ask(python: str) -> None:
    """Run the RAG loop once, its texts on the spans."""
    settings = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{URL}/v1/traces",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
    }
    here = Path(__file__).parent
    subprocess.run([python, "rag.py"], cwd=here, env={**os.environ, **settings}, check=True)


def spans(*, at_least: int) -> list[Mapping[str, object]]:
    """Return the reranker spans that arrived."""
    for _ in range(60):
        answer = httpx.get(f"{URL}/v1/projects/default/spans?limit=1000", timeout=60.0)
        found = [one for one in answer.json()["data"] if one["span_kind"] == "RERANKER"]
        if len(found) >= at_least:
            return found
        time.sleep(1.0)
    sys.exit(f"{len(found)} RERANKER spans arrived, expected {at_least}")


def pictures(folder: Path) -> None:
    """Take screenshots of one trace and check that its documents are on them."""
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        sys.exit("no chromium on the PATH; install it, for example: apt-get install chromium")
    span = spans(at_least=2)[-1]
    attributes, context = span["attributes"], span["context"]
    assert isinstance(attributes, dict)
    assert isinstance(context, dict)
    project = httpx.get(f"{URL}/v1/projects", timeout=60.0).json()["data"][0]["id"]
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 760})
        page.set_default_timeout(_STEP_MS)
        page.goto(f"{URL}/projects/{project}/traces/{context['trace_id']}")
        page.get_by_text("rerank.fuse").first.wait_for()
        page.get_by_text("rerank embedded").first.click()
        page.get_by_text("document 0").filter(visible=True).first.wait_for()
        shown = page.inner_text("body")
        best = attributes["reranker.output_documents.0.document.content"]
        for expected in ("reranker", attributes["reranker.query"], str(best)[:60]):
            assert str(expected) in shown, f"{expected!r} is not on the page"
        page.screenshot(path=folder / "trace-documents.png")
        page.get_by_text("rerank.score").first.click()
        page.get_by_role("tab", name="Attributes").click()
        page.get_by_text("batches").filter(visible=True).first.wait_for()
        page.screenshot(path=folder / "trace-score.png")
        browser.close()
    print(f"wrote {folder}/trace-documents.png and trace-score.png")


def main() -> None:
    """Start the viewer, ask, and look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="the Python that has rerank-plugins[otel,eval]")
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    options = parser.parse_args()
    with viewer():
        ask(options.python)
        if options.pictures is not None:
            pictures(options.pictures)
            return
        print(f"traces: {URL} (Ctrl-C ends it)")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
