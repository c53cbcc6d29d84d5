"""Rerank passages for retrieval-augmented generation: fast, bounded in time, and explained."""

from .cascade import Stage
from .errors import RerankError
from .records import Budget, Candidate, Hit, Request, Result
from .reranker import Reranker, load
from .scorers import Scorer

__all__ = [
    "Budget",
    "Candidate",
    "Hit",
    "Request",
    "RerankError",
    "Reranker",
    "Result",
    "Scorer",
    "Stage",
    "load",
]
