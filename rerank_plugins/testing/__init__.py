"""What users need to test their own fallbacks: a rerank API on loopback that fails on request."""

from .faults import Fault
from .server import FakeRerankServer, Received

__all__ = ["FakeRerankServer", "Fault", "Received"]
