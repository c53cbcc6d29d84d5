"""Who computes when: worker threads, one queue, fair shares."""
