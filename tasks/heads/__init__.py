"""Heads: what they are and how they load; and how the built-in ones are made, from which rows."""
