"""Rerank passages for retrieval-augmented generation: fast, bounded in time, and explained."""

from .cascade import Stage
from .errors import RerankError
from .policy import Policy
from .records import Budget, Candidate, Hit, Request, Result
from .reranker import Reranker, load
from .scorers import Scorer

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
