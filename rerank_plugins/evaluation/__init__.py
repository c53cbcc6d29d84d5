"""Quality and cost on a labelled set: what reranking changes, and what it takes."""

from .comparison import Comparison, Difference, System, adjust, compare
from .datasets import Dataset, Topic, sample, shorten
from .loader import read

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
