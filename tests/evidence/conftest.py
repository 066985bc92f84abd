"""The experiments are a package at the root, beside the library: it is found where `make evidence` finds it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
