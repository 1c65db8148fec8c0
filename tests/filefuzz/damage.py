"""Damage: a file's bytes, its JSON or its tensors changed at random."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

from passes.certificate import hash_of

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 10**6, 10**12, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), -float("inf"), "", "x", "0", "é\ud800", "../../etc/passwd", [], [[]], [1, "a"], {}, {"a": 1},
    {"0": [0]},
)  # fmt: skip
HEADER = 8  # bytes of a safetensors file that say how long its JSON header is


def damaged(content: bytes, kind: str, draw: random.Random) -> bytes:
    """``content`` of a file of this ``kind`` ("json", "signed", "safetensors", or else), with one to three faults."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if kind == "signed":
            content = _signed(content, draw)
        elif kind == "json" and draw.random() < 0.7:
            content = _json(content, draw)
        elif kind == "safetensors" and draw.random() < 0.7:
            content = _header(content, draw)
        else:
            content = _bytes(content, draw)
    return content


def _bytes(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    if not changed:
        return b"\0"
    place = draw.randrange(len(changed))
    match draw.randrange(6):
        case 0:
            changed[place] ^= 1 << draw.randrange(8)
        case 1:
            changed[place] = draw.randrange(256)
        case 2:
            del changed[place:]
        case 3:
            del changed[place : place + draw.randrange(1, 40)]
        case 4:
            changed[place:place] = changed[place : place + draw.randrange(1, 200)]
        case _:
            changed[place:place] = draw.choice((b"[" * 5000, b"{", b'"', b"\xff\xfe", b"\0", b",", b"9" * 5000, b"NaN"))
    return bytes(changed)


def _json(content: bytes, draw: random.Random) -> bytes:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(content, draw)
    return json.dumps(change(data, draw), default=str).encode("utf-8", "surrogatepass")


def _signed(content: bytes, draw: random.Random) -> bytes:
    """JSON that carries a hash of itself, changed by someone who knows how to make it."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(content, draw)
    if not isinstance(data, dict):
        return _bytes(content, draw)
    data.pop("digest", None)
    data = change(data, draw)
    return json.dumps({**data, "digest": hash_of(data)} if isinstance(data, dict) else data).encode()


def change(data: Any, draw: random.Random) -> Any:
    """One value somewhere inside replaced, removed, added or moved."""
    places = list(_places(data))
    if not places:
        return draw.choice(ODD)
    holder, key = draw.choice(places)
    match draw.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(draw.randrange(len(holder) + 1), holder[key])
        case 1:
            holder[draw.choice(("x", "", "0", f"{key}x"))] = holder[key]
        case 2:
            other, place = draw.choice(places)
            holder[key] = json.loads(json.dumps(other.get(place) if isinstance(other, dict) else other[place]))
        case 3 if type(holder[key]) in (int, float):
            holder[key] += draw.choice((1, -1, 0.5, 10**12))
        case _:
            holder[key] = draw.choice(ODD)
    return data


def _places(data: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    queue = [data]
    while queue:
        inner = queue.pop()
        keys = list(inner) if isinstance(inner, dict) else range(min(len(inner), 8)) if isinstance(inner, list) else ()
        for key in keys:
            found.append((inner, key))
            queue.append(inner[key])
    return found


def _header(content: bytes, draw: random.Random) -> bytes:
    """A safetensors file whose header says other shapes, dtypes, names or places."""
    try:
        length = struct.unpack("<Q", content[:HEADER])[0]
        header = json.loads(content[HEADER : HEADER + length])
    except (ValueError, RecursionError, struct.error):
        return _bytes(content, draw)
    if not isinstance(header, dict):
        return _bytes(content, draw)
    names = [name for name in header if name != "__metadata__"]
    if draw.random() < 0.5 and names:
        entry = header[draw.choice(names)]
        if isinstance(entry, dict):
            dtypes = ("BOOL", "U8", "I8", "I64", "F16", "BF16", "F32", "F64", "F8_E4M3", "C64", "F4", "X")
            entry["dtype"] = draw.choice(dtypes)
    else:
        header = change(header, draw)
    text = json.dumps(header, default=str).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + content[HEADER + length :]
