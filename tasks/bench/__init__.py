"""`nautile bench`: the figures that the README and the model card state, measured again by one command."""
