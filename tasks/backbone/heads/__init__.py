"""The built-in heads of nautile-mini: the rows they learn from, how they are fitted and calibrated."""
