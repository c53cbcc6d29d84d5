"""The slices of a deadline: what each step may take of the time that is left."""

FINISH_S = 0.002
"""What merging, fusing and handing over take at most (measured: 0.6 ms for 200 candidates)."""

LOADING_SHARE = 0.75
"""The share of its budget that a request waits for a model to load.

What a cold model's first batch takes is not known: with less left than this it could end late.
"""

READING_SHARE = 0.6
"""The share of the time left after which nothing more is tokenised; the rest is for scoring."""

BATCH_S = 0.008
"""What a batch under a deadline takes at most, unless one pair alone takes longer.

Little is forgone when the next one would not end in time, and one that takes twice as long as
predicted is late by no more than that.
"""

BATCH_SHARE = 0.125
"""The share of the time left that a batch takes at most, to the same end."""

LOCAL_SHARE = 0.5
"""Local stages that can score less than this share of the texts in time are late.

Down to this share, fewer candidates cost less quality than asking another model.
"""

FALLBACK_SHARE = 0.35
"""The share of the time left that a stage asked first leaves to the stages behind it.

A fallback whose turn comes at the deadline cannot help.
"""

REMOTE_RETURN_S = 0.005
"""What it takes at most to bring a remote answer from the client's thread back to the request."""

FAIR_CALL_S = 0.1
"""A remote call that was given less time, and less than FAIR_CALL_SHARE, is no sign of a fault."""

FAIR_CALL_SHARE = 0.5
"""The share of its request's time that makes a time-out a fault of the destination."""

PLANNED_SHARE = 0.9
"""The share of the time left that a plan uses; the rest absorbs errors of prediction."""
