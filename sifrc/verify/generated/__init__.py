"""Level 3: generated modules in their own dtype."""
