"""Puts the folder of the API's tests on the path: the commands share its small specs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "api"))
