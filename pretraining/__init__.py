"""Training of the backbone. It shares only the architecture and the vocabulary with `nautile.model`."""
