"""Rerank passages for retrieval-augmented generation: fast, bounded in time, and explained."""

from .core.stage import Stage
from .errors import RerankError
from .records import Budget, Candidate, Hit, Request, Result
from .reranker import Reranker, load
from .rules.residency import Policy
from .scoring import Scorer

__all__ = [
    "Budget",
    "Candidate",
    "Hit",
    "Policy",
    "Request",
    "RerankError",
    "Reranker",
    "Result",
    "Scorer",
    "Stage",
    "load",
]
