"""The workflows of the repository's host: safe, and calling what a developer calls."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = ROOT / ".github/workflows"
PROJECTS = (ROOT / "pyproject.toml", *sorted(ROOT.glob("adapters/*/pyproject.toml")))
VERSIONS = ["3.11", "3.12", "3.13", "3.14"]


def workflow(name):
    """Return a workflow as a dict; its triggers are under "on"."""
    read = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))
    # YAML 1.1 reads the key `on` as true.
    return {("on" if key is True else key): value for key, value in read.items()}


def commands(job):
    """Return every shell command of a job."""
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


def project(path):
    """Return the [project] table of a pyproject.toml."""
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]


def test_the_linter_of_workflows_finds_nothing():
    """Syntax, permissions, script injection and stored credentials, as zizmor checks them."""
    command = [
        Path(sys.executable).with_name("zizmor"),
        *("--offline", "--no-progress", "--strict-collection", "--persona=pedantic"),
        WORKFLOWS.parent,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_a_workflow_may_do_nothing_that_a_job_does_not_ask_for(name):
    """No permission by default, a time limit on each job, and no secret anywhere."""
    asked = workflow(name)
    assert asked["permissions"] == {}
    assert all("timeout-minutes" in job for job in asked["jobs"].values())
    assert "secrets." not in (WORKFLOWS / name).read_text(encoding="utf-8")


def test_every_change_runs_the_linters_and_every_test():
    """On a pull request and on main: what .ci/run calls."""
    asked = workflow("ci.yml")
    assert set(asked["on"]) == {"push", "pull_request"}
    called = re.findall(r"^make \w+$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert commands(asked["jobs"]["whole"]).splitlines() == called == ["make lint", "make test"]


def test_every_change_runs_the_fast_tests_where_the_package_is_said_to_run():
    """The matrix is the Python versions and systems that the classifiers promise."""
    job = workflow("ci.yml")["jobs"]["fast"]
    assert job["strategy"]["matrix"]["python"] == VERSIONS
    systems = {name.split("-")[0] for name in job["strategy"]["matrix"]["system"]}
    assert systems == {"ubuntu", "macos", "windows"}
    assert '-m "not slow"' in commands(job)
    assert '-m "not slow"' in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_a_release_is_published_by_the_job_that_runs_none_of_our_code():
    """Only the job that publishes may ask for an identity, and it waits for the checks."""
    asked = workflow("release.yml")
    assert asked["on"] == {"push": {"tags": ["v*"]}}
    build, publish = asked["jobs"]["build"], asked["jobs"]["publish"]
    assert publish["needs"] == "build"
    assert publish["permissions"] == {"id-token": "write"}
    assert build["permissions"] == {"contents": "read"}
    assert not commands(publish)
    for part in ("uv build --all-packages", "twine==", "rerank("):
        assert part in commands(build)


def test_the_release_checks_the_version_as_the_files_write_it():
    """All four distributions have one version, on a line that the release compares to the tag."""
    versions = {project(path)["version"] for path in PROJECTS}
    assert len(PROJECTS) == 4
    assert len(versions) == 1
    line = f'version = "{versions.pop()}"'
    assert all(line in path.read_text(encoding="utf-8").splitlines() for path in PROJECTS)


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_the_classifiers_name_every_tested_version_and_system(path):
    """What PyPI shows is what the matrix runs."""
    classifiers = project(path)["classifiers"]
    prefix = "Programming Language :: Python :: "
    assert [one.removeprefix(prefix) for one in classifiers if one.startswith(prefix)][1:] == (
        VERSIONS
    )
    systems = {one.split(" :: ")[-1] for one in classifiers if one.startswith("Operating System")}
    assert systems == {"Linux", "MacOS", "Windows"}
