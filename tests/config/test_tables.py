"""Specification of `rerank_plugins.config.tables`: records filled from tables of settings."""

from rerank_plugins import Policy
from rerank_plugins.config.remote_schema import BreakerSettings, RemoteSettings
from rerank_plugins.config.schema import (
    GuardSettings,
    PolicySettings,
    StageSettings,
    TelemetrySettings,
)
from rerank_plugins.config.tables import record
from rerank_plugins.quality.guard.stance import GuardOptions
from rerank_plugins.remote.options import RemoteOptions
from rerank_plugins.remote.resilience import BreakerOptions
from rerank_plugins.scoring.onnx.options import OnnxOptions
from rerank_plugins.telemetry import TelemetryOptions


def test_tables_and_their_records_agree_on_every_default():
    """A setting that is left out means what the record means without it."""
    assert record(OnnxOptions, StageSettings()) == OnnxOptions()
    assert record(TelemetryOptions, TelemetrySettings()) == TelemetryOptions()
    assert record(GuardOptions, GuardSettings()) == GuardOptions()
    assert record(BreakerOptions, BreakerSettings()) == BreakerOptions()
    assert record(Policy, PolicySettings()) == Policy()
    remote = RemoteSettings(provider="tei")
    assert record(RemoteOptions, remote, {"breaker": BreakerOptions()}) == RemoteOptions("tei")


def test_milliseconds_become_seconds_and_given_fields_win():
    """A key in milliseconds fills the field in seconds, except where a value is given."""
    slow = TelemetrySettings(slow_ms=250.0)
    assert record(TelemetryOptions, slow).slow_s == 0.25
    assert record(TelemetryOptions, slow, {"slow_s": 9.0}).slow_s == 9.0
