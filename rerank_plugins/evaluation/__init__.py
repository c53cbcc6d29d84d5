"""Quality and cost on a dataset: what reranking changes, and how long it takes."""

from .comparison import Comparison, Difference, System, adjust, compare
from .datasets import Dataset, Topic, read, sample, shorten

__all__ = [
    "Comparison",
    "Dataset",
    "Difference",
    "System",
    "Topic",
    "adjust",
    "compare",
    "read",
    "sample",
    "shorten",
]
