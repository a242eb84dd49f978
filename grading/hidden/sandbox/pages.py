"""Makes a large process cheap to fork and small to keep, after it has imported everything. Linux only.

Forking copies a table with an entry for each page, and the end of each child takes it apart: 100,000 pages of 4 kB
after importing torch, which is half of what a worker costs. In pages of 2 MB the table is short. And 300 MB of the
libraries' code were needed for importing only; without them the process is that much smaller, and what a call needs is
mapped again when it is touched.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_DONTNEED, _COLLAPSE = 4, 25  # madvise
_HUGE = 2 << 20
_SMALL = 64 << 10


@dataclass
class _Mapping:
    """One line of /proc/self/smaps with what follows it, in bytes."""

    start: int
    end: int
    permissions: str
    is_file: bool
    sizes: dict[str, int] = field(default_factory=dict)


def settle() -> None:
    """Put data into huge pages and give back the pages of code. Only saves time and memory, so nothing fails."""
    if not sys.platform.startswith("linux"):
        return
    for mapping in list(_mappings()):
        if not mapping.is_file and mapping.permissions == "rw-p" and mapping.end - mapping.start >= _HUGE:
            _advise(mapping, _COLLAPSE)  # Linux 6.1; refused for what is too small, and by older kernels
        # A page that this process has changed (a relocation) would be lost; without one, the file has it all.
        is_code = mapping.is_file and mapping.permissions in ("r--p", "r-xp")
        if is_code and mapping.sizes.get("Anonymous") == 0 and mapping.sizes.get("Rss", 0) > _SMALL:
            _advise(mapping, _DONTNEED)


def _mappings() -> Iterator[_Mapping]:
    mapping = None
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+)", line):
            if mapping is not None:
                yield mapping
            mapping = _Mapping(int(match[1], 16), int(match[2], 16), match[3], match[4] != "0")
        elif mapping is not None and (match := re.match(r"(\w+): +(\d+) kB", line)):
            mapping.sizes[match[1]] = int(match[2]) << 10
    if mapping is not None:
        yield mapping


def _advise(mapping: _Mapping, advice: int) -> None:
    ctypes.CDLL(None).madvise(
        ctypes.c_void_p(mapping.start), ctypes.c_size_t(mapping.end - mapping.start), ctypes.c_int(advice)
    )
