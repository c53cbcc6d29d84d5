"""A rerank API on loopback that fails on request, to test fallbacks with."""

from .faults import Fault
from .server import FakeRerankServer, Received

__all__ = ["FakeRerankServer", "Fault", "Received"]
