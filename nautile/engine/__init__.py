"""Batches without padding waste, and long texts read in windows."""
