"""What every test stands on: no network but loopback."""

import gc
import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

# For the tests that import onnxruntime by themselves, and their processes.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class BlockedSocketError(RuntimeError):
    """A test reached for the network; not an OSError, which a client would take for an outage."""


def _on_loopback(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in {None, "", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(str(host).split("%", maxsplit=1)[0]).is_loopback
    except ValueError:
        return False


def pytest_collection_finish() -> None:
    """Set aside what all test modules imported.

    A full collection that looks through every framework took up to 1.9 s, more than the budgets
    that tests give (0.2 s is left to a fallback).
    """
    _set_aside()


@pytest.fixture(scope="module")
def unburdened() -> None:
    """Keep what tests before left out of collections, for tests of time."""
    _set_aside()


def _set_aside() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _loopback_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection and look-up that would leave this machine."""
    if request.node.get_closest_marker("network") is not None:
        return

    def guarded(real: Callable[..., object]) -> Callable[..., object]:
        def connect(self: socket.socket, address: object) -> object:
            inet = self.family in {socket.AF_INET, socket.AF_INET6}
            if inet and isinstance(address, tuple) and not _on_loopback(address[0]):
                raise BlockedSocketError(f"a test connects to {address}; only loopback is open")
            return real(self, address)

        return connect

    look_up = socket.getaddrinfo

    def getaddrinfo(host: object, *rest: object, **named: object) -> object:
        if not _on_loopback(host):
            raise BlockedSocketError(f"a test looks up {host!r}; only loopback is open")
        return look_up(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a tiny BERT cross-encoder; see tests/tiny.py."""
    from tests import tiny

    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")
