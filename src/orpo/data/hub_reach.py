"""Whether the Hub can be asked at all: its address enters, True or False leaves within a moment."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from urllib.parse import urlsplit

PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def hub_in_reach() -> bool:
    """False where the name of the Hub cannot be looked up: its library would try for half a minute, for each file, before it says so.

    Behind a proxy names are looked up there, so nothing can be said here: True.
    """
    return any(os.environ.get(name) for name in PROXIES) or _is_known(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")


@lru_cache(maxsize=4)
def _is_known(endpoint: str) -> bool:
    try:
        socket.getaddrinfo(urlsplit(endpoint).hostname, urlsplit(endpoint).port or 443)
    except OSError:
        return False
    return True
