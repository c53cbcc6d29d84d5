"""Quality and cost on a labelled set: what reranking changes, and what it takes."""

from .comparison import Comparison, System, compare
from .datasets import Dataset, Topic, read, sample, shorten

__all__ = ["Comparison", "Dataset", "System", "Topic", "compare", "read", "sample", "shorten"]
