"""A window: the requests that are judged together."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .observing import Feature, Observation


@dataclass(slots=True)
class Window:
    """Collects observations until `size` of them can be judged."""

    size: int
    observations: list[Observation] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Tell whether it is time to judge."""
        return len(self.observations) >= self.size

    def add(self, one: Observation) -> None:
        """Add one request."""
        self.observations.append(one)

    def sample(self, feature: Feature) -> NDArray[np.float64]:
        """Give a feature's values, of the requests that tell it."""
        column = np.array([one[feature] for one in self.observations], dtype=np.float64)
        return column[~np.isnan(column)]
