"""Oracles: derivatives from the forward pass of a spec alone."""
