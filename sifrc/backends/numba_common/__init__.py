"""What the Numba backends share: arrays and their names, loop nests, public functions."""
