# SPDX-License-Identifier: MIT OR Apache-2.0

"""Large blocks of Python programs in an arena of /dev/freelist, and what they hold.

``python -m freelist run PROGRAM`` starts such a program; the functions here are for use in it.
"""

import ctypes
import os
import platform
import sys
from pathlib import Path

__all__ = ["environment", "is_active", "library", "stats", "trim"]

LIBRARY = "libfreelist_malloc.so"
# The prefix of an arena's fields in /proc/PID/fdinfo/FD.
PREFIX = "freelist_"


def library():
    """Returns the path of the malloc library.

    FREELIST_LIBRARY names it; otherwise it is searched for where it may be installed. Raises
    FileNotFoundError with the places that were searched.
    """
    given = os.environ.get("FREELIST_LIBRARY")
    if given:
        places = [Path(given)]
    else:
        folders = ["/usr/local/lib", "/usr/lib", f"/usr/lib/{platform.machine()}-linux-gnu"]
        folders.insert(0, os.path.join(sys.prefix, "lib"))
        places = [Path(folder, LIBRARY) for folder in folders]
    for place in places:
        if place.is_file():
            return str(place.resolve())
    looked_in = ", ".join(map(str, places))
    raise FileNotFoundError(
        f"{LIBRARY} was not found in {looked_in}: install it, or name it in FREELIST_LIBRARY"
    )


def environment(limit=None, threshold=None, strict=False):
    """Returns this process's environment, changed for a program with its large blocks in an arena.

    limit is the most that the arena of each process may hold, threshold the bytes from which blocks are
    the arena's: numbers, or texts such as "4G". With strict a block that the arena cannot serve is
    refused instead of being the C library's.
    """
    result = dict(os.environ)
    # Before any library that is preloaded already, which has the small blocks then.
    others = [other for other in result.get("LD_PRELOAD", "").split(":") if other]
    path = library()
    result["LD_PRELOAD"] = ":".join([path, *(other for other in others if other != path)])
    for name, value in (("LIMIT", limit), ("THRESHOLD", threshold), ("STRICT", 1 if strict else None)):
        if value is not None:
            result[f"FREELIST_{name}"] = str(value)
    return result


def is_active():
    """Returns whether this process was started with the malloc library."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        return any("/" + LIBRARY in line for line in maps)


def stats(pid="self"):
    """Returns a dict for each arena that a process has open: its counters by the names of
    FREELIST_IOC_STAT, and its number as "arena". Sizes are in bytes.

    The list is empty if the process has no arena (yet). Raises OSError if there is no such process, or
    it is another user's.
    """
    arenas = {}
    folder = f"/proc/{pid}/fdinfo"
    for descriptor in os.listdir(folder):
        try:
            with open(f"{folder}/{descriptor}", encoding="ascii") as file:
                lines = [line.partition(":") for line in file if line.startswith(PREFIX)]
        except FileNotFoundError:
            # The program closed it meanwhile.
            continue
        arena = {name[len(PREFIX) :]: int(value) for name, _, value in lines}
        if arena:
            # All descriptors of an arena have the same fields.
            arenas[arena["arena"]] = arena
    return [arenas[number] for number in sorted(arenas)]


def trim(keep=0):
    """Returns free memory of the arena, and of the C library's heap, to the system, but for about keep
    bytes. Returns True if any was returned."""
    return bool(ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(keep)))
