"""The door to ONNX Runtime."""

import os

import onnxruntime as library
import pytest

from rerank_plugins.scoring.runtime.ort import VARIABLE, onnxruntime, quantization


@pytest.fixture
def called(monkeypatch):
    """Record the library's own call that switches its telemetry off."""
    calls = []
    monkeypatch.setattr(library, "disable_telemetry_events", lambda: calls.append("off"))
    return calls


@pytest.mark.parametrize("given", ["", " ", "1", "true", "2", "yes please"])
def test_telemetry_is_off_unless_the_user_clearly_wants_it(given, called, monkeypatch):
    """What the library would not understand means off as well."""
    monkeypatch.setenv(VARIABLE, given)
    assert onnxruntime() is library
    assert os.environ[VARIABLE] == "1"
    assert called == ["off"]


@pytest.mark.parametrize("given", ["0", "False", "no", "off"])
def test_a_user_who_wants_it_keeps_it(given, called, monkeypatch):
    """Neither the variable nor the call is ours then."""
    monkeypatch.setenv(VARIABLE, given)
    assert quantization().QuantType is not None
    assert os.environ[VARIABLE] == given
    assert called == []


def test_an_earlier_import_is_named_once(called, monkeypatch, caplog):
    """Whoever imported the library before decided; the log says what to set."""
    monkeypatch.delenv(VARIABLE, raising=False)
    onnxruntime()
    onnxruntime()
    assert [record.getMessage() for record in caplog.records] == [
        "onnxruntime was imported earlier, and may report to its maker: set ORT_DISABLE_TELEMETRY=1"
    ]
