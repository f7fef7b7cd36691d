"""Level 1: proofs by the normal form, and agreement with SymPy."""
