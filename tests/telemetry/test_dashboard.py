"""The dashboard and the alerts speak of metrics that exist, by labels that they have."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from rerank_plugins import semconv

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "examples" / "observability"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
NAME = re.compile(r"\b(?:rerank|gen_ai|error)_\w+")
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions():
    """Give every query of dashboard and alerts."""
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
    variables = [one["query"]["query"] for one in DASHBOARD["templating"]["list"]]
    return [*queries, *variables, *(rule["expr"] for rule in RULES)]


@pytest.fixture(scope="module")
def exposed():
    """Give every sample name and label that Prometheus sees once each instrument was used."""
    registry = CollectorRegistry()
    meters = MeterProvider([PrometheusMetricReader(registry=registry)])
    meter = meters.get_meter("test")
    for one in semconv.METRICS:
        labels = dict.fromkeys(one.attributes, "x")
        if one.kind == "counter":
            meter.create_counter(one.name, unit=one.unit).add(1, labels)
        elif one.kind == "gauge":
            meter.create_gauge(one.name, unit=one.unit).set(1, labels)
        else:
            meter.create_histogram(one.name, unit=one.unit).record(1, labels)
    samples = {
        sample.name: set(sample.labels)
        for family in registry.collect()
        for sample in family.samples
    }
    meters.shutdown()
    return {name: labels for name, labels in samples.items() if name.startswith("rerank_")}


@pytest.mark.parametrize("expression", expressions())
def test_a_query_names_existing_metrics_and_their_labels_alone(exposed, expression):
    """Each name in a query is a sample that is exposed, or a label of one that the query names."""
    names = set(NAME.findall(expression))
    metrics = names & set(exposed)
    assert metrics
    labels = set().union(*(exposed[name] for name in metrics))
    assert names - metrics <= labels


def test_every_metric_is_on_the_dashboard(exposed):
    """What is recorded can be looked at."""
    shown = {name for one in expressions() for name in NAME.findall(one)}
    for metric in semconv.METRICS:
        stem = metric.name.replace(".", "_")
        assert any(name.startswith(stem) for name in shown & set(exposed)), metric.name


def test_panels_have_their_own_place_number_and_explanation():
    """No two panels overlap or share an id, and each says what it shows and in which unit."""
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for one, other in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
    for panel in PANELS:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_the_panels_a_person_on_call_needs_are_there():
    """Percentiles by candidate count, the stage breakdown, degraded share, drift."""
    titles = {panel["title"] for panel in PANELS}
    assert titles >= {
        "p50 by candidate count",
        "p95 by candidate count",
        "p99 by candidate count",
        "Time by step and stage",
        "Degraded share",
        "Agreement with the first stage",
    }


def test_the_dashboard_reads_the_data_source_that_the_deployment_provides():
    """Its data source's uid is the provisioned one."""
    provided = yaml.safe_load((ROOT / "deploy/grafana/datasource.yaml").read_text())
    uid = provided["datasources"][0]["uid"]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {uid}


def test_alerts_cover_latency_breakers_and_harm_and_say_what_to_do():
    """The three demanded alerts are there; each has a severity, a summary and a description."""
    assert {rule["alert"] for rule in RULES} >= {"RerankSlow", "RerankBreakerOpen", "RerankMayHarm"}
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}
