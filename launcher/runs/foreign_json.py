"""JSON that others have written: hosts, other versions, a disk that lost its power."""

from __future__ import annotations

import json
from typing import Any


def parse_json_object(data: bytes | str) -> dict[str, Any] | None:
    """Return the object. None for anything else: torn, too deeply nested, another type.

    Surrogates without a partner, which nothing can print or send, become U+FFFD.
    """
    try:
        content = json.loads(data)
        text = data if isinstance(data, str) else data.decode()
        if "\\ud" in text.lower():
            text = json.dumps(content, ensure_ascii=False)
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
