"""Heads on a backbone's vectors: what one is, how it and its backbone load, what it may know beside its weights."""
