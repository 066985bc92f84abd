"""Makes `killing` importable: tests cannot import each other under importlib mode."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
