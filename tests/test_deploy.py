"""The deployment files, as far as they can be checked without a container engine or a cluster."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def test_every_yaml_parses_and_mounts_files_that_exist() -> None:
    """Compose mounts name files of this repository."""
    for path in DEPLOY.rglob("*.yaml"):
        assert list(yaml.safe_load_all(path.read_text()))
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for service in services.values():
        for mount in service.get("volumes", []):
            assert (DEPLOY / mount.split(":")[0]).resolve().exists(), mount


def test_the_image_is_built_from_what_is_there_and_runs_as_nobody() -> None:
    """Copied paths exist, the user is a number above 0, and the entry point is the command."""
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    copied = [
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    assert copied
    assert all((ROOT / word).exists() for word in copied)
    assert any(line.startswith("USER ") and int(line.split()[1]) > 0 for line in lines)
    assert any(line.startswith("ENTRYPOINT") and '"serve"' in line for line in lines)


def test_nothing_that_is_deployed_reports_to_its_maker() -> None:
    """The image, the composed services and the pods switch the reports of libraries off."""
    off = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    image = (DEPLOY / "Containerfile").read_text().split()
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    pods = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod = next(part for part in pods if part["kind"] == "Deployment")["spec"]["template"]["spec"]
    listed = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    for variable, value in off.items():
        assert f"{variable}={value}" in image
        assert services["rerank"]["environment"][variable] == listed[variable] == value
    assert services["grafana"]["environment"]["GF_ANALYTICS_REPORTING_ENABLED"] == "false"


def test_pods_are_confined_and_probed() -> None:
    """The manifest probes our own routes, drops privileges, and outlives the drain."""
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    pod = next(one for one in documents if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["terminationGracePeriodSeconds"] > 30 + 5
