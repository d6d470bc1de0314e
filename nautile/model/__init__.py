"""The language model: configuration, vocabulary, layers, state and checkpoints."""
