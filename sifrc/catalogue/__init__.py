"""Public operators: one record for each, from which planning, printers, verification and reports read."""
