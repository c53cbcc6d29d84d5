"""The slices of a deadline: what each step may take of the time that is left."""

FINISH_S = 0.002
"""What merging, fusing and handing over take at most (measured: 0.6 ms for 200 candidates)."""

BATCH_S = 0.008
"""What a batch under a deadline takes at most, unless one pair alone takes longer.

Little is forgone when the next one would not end in time, and one that takes twice as long as
predicted is late by no more than that.
"""
