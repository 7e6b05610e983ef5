"""What a data set holds: statistics, anchor coverage, near-duplicates, faults."""
