"""Reading many texts fast: batches without waste, long texts in windows, shared prefixes read once; and scoring."""
