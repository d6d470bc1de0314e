"""Training of the backbone in JAX. It shares only the architecture and the vocabulary with `nautile.model`."""
