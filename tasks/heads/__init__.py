"""The built-in heads: the data they learn from, how they are trained and measured."""
