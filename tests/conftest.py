"""What several rooms' tests need: no network, quiet threads, and a tiny model folder."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# One thread a process: the suite runs on all cores, and sums are made in the same order everywhere.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

ROOT = Path(__file__).resolve().parent.parent
MANY_MODULES = 20

seen = {"modules": 0}


def pytest_runtest_setup() -> None:
    """Nothing; what many new modules brought is set apart from garbage collection. It stays, and every run ends with a collection
    that would look at some million objects of torch and transformers: half of the time of a small run."""
    if len(sys.modules) > seen["modules"] + MANY_MODULES:
        gc.collect()
        gc.freeze()
        seen["modules"] = len(sys.modules)


def load_by_path(path: Path) -> ModuleType:
    """The module in the file `path`: scripts and benchmarks are no packages."""
    name = f"loaded_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def make_tiny_llama() -> Callable[..., Path]:
    """scripts/make_tiny_llama.py: a folder with a random model, and a tokenizer that goes with it."""
    make: Callable[..., Path] = load_by_path(ROOT / "scripts" / "make_tiny_llama.py").make_tiny_llama
    return make


@pytest.fixture(scope="session")
def tiny_llama(make_tiny_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama-shaped model with a byte-level tokenizer and no chat template."""
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_chat_llama(make_tiny_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a ChatML template."""
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-chat-llama", chat=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pairs beside the repository; tests that need it skip where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real pairs (../shared/data) are not here")
    return folder
