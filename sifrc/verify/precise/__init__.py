"""Level 2: derived systems and the lowered program, interpreted at many digits."""
