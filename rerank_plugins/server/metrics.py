"""Prometheus exposition, where its client library is installed."""

from importlib.util import find_spec


def exposition() -> bytes | None:
    """Give the process's metrics in Prometheus' text format; None without prometheus-client."""
    if find_spec("prometheus_client") is None:
        return None
    from prometheus_client import generate_latest

    return generate_latest()
