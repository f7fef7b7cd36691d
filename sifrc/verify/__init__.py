"""Verification: independent oracles and the ladder of checks."""

from sifrc.verify.ladder import verify
from sifrc.verify.table import Report, Row

__all__ = ["Report", "Row", "verify"]
