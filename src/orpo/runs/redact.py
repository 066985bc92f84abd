"""Secrets taken out of anything written: a text or a JSON value enters, the same without secrets leaves.

Two nets: the values of environment variables whose names look secret, and the shapes of well-known tokens.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

# A part of the name between underscores must end so: HF_TOKEN, PGPASSWORD, WANDB_API_KEY, but not TOKENIZERS_PARALLELISM or KEYBOARD.
_SECRET_PART = re.compile(r".*(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)S?")
_COUNTS = re.compile(r".*TOKENS")
# HF_TOKEN_PATH names a file; blanking its path in every message would hide what the reader needs.
_PLACES = {"PATH", "FILE", "DIR", "NAME"}
_SHORTEST_SECRET = 8

_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_[A-Za-z0-9]{16,}"
    r"|sk-(?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|AKIA[0-9A-Z]{16}|AIza[A-Za-z0-9_-]{35}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r")"
)
_LOGIN_IN_URL = re.compile(r"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)")


def secret_values(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Value -> name of every secret in the environment (the process's own by default), longest first."""
    environment = os.environ if environment is None else environment
    found = {value.strip(): name for name, value in environment.items() if _is_secret_name(name) and len(value.strip()) >= _SHORTEST_SECRET}
    # Longest first: where one secret contains another, the whole goes and not a part that leaves a rest standing.
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def redact_text(text: str, *, environment: Mapping[str, str] | None = None) -> str:
    """`text` with every secret replaced by `[redacted NAME]` or `[redacted]`, also where it is escaped for JSON or a URL."""
    return _without(text, secret_values(environment))


def redact(value: Any, *, environment: Mapping[str, str] | None = None) -> Any:
    """A JSON value with every string in it redacted, keys included."""
    return _redact_value(value, secret_values(environment))


def _redact_value(value: Any, secrets: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _without(value, secrets)
    if isinstance(value, Mapping):
        return {_without(key, secrets): _redact_value(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(item, secrets) for item in value]
    return value


def _without(text: str, secrets: Mapping[str, str]) -> str:
    for secret, name in secrets.items():
        for spelling in dict.fromkeys((secret, json.dumps(secret)[1:-1], quote(secret, safe=""))):
            text = text.replace(spelling, f"[redacted {name}]")
    return _LOGIN_IN_URL.sub("[redacted]", _SHAPES.sub("[redacted]", text))


def _is_secret_name(name: str) -> bool:
    parts = name.upper().split("_")
    if parts[-1] in _PLACES:
        return False
    return any(_SECRET_PART.fullmatch(part) and not _COUNTS.fullmatch(part) for part in parts)
