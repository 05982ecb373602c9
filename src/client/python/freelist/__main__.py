# SPDX-License-Identifier: MIT OR Apache-2.0

"""python -m freelist: runs a Python program with its large blocks in an arena, or shows the arenas of a process."""

import argparse
import os
import sys

import freelist

# The fields that `stat` prints.
SHOWN = ("live_blocks", "live_bytes", "free_bytes", "held_bytes", "limit_bytes", "allocs", "failures")


def run(args):
    environment = freelist.environment(args.limit, args.threshold, args.strict)
    # The same interpreter with its own options, and the program's arguments unchanged.
    options = sys.orig_argv[1 : sys.orig_argv.index("-m")] if "-m" in sys.orig_argv else []
    os.execve(sys.executable, [sys.executable, *options, *args.program], environment)


def stat(args):
    arenas = freelist.stats(args.pid)
    if not arenas:
        print(f"{args.pid}: no arena is open")
    for arena in arenas:
        print(f"arena {arena['arena']}")
        for name in SHOWN:
            print(f"  {name:<12} {arena[name]:>16,}")


def parser():
    result = argparse.ArgumentParser(prog="python -m freelist", description=freelist.__doc__.splitlines()[0])
    commands = result.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="run a Python program with its large blocks in an arena")
    command.add_argument("--limit", metavar="SIZE", help="limit of an arena in bytes; K, M, G are KiB, MiB, GiB")
    command.add_argument("--threshold", metavar="SIZE", help="bytes from which blocks are the arena's (64K)")
    command.add_argument("--strict", action="store_true", help="refuse blocks that the arena cannot serve")
    command.usage = "%(prog)s [--limit SIZE] [--threshold SIZE] [--strict] FILE | -m MODULE | -c CODE [ARGUMENT...]"
    command.set_defaults(do=run, parser=command)
    command = commands.add_parser("stat", help="show what the arenas of a process hold")
    command.add_argument("pid", nargs="?", default="self", metavar="PID")
    command.set_defaults(do=stat)
    return result


def split(words):
    """Splits a command line before the program of `run`, which has all further arguments."""
    if words[:1] != ["run"]:
        return words, []
    at = 1
    while at < len(words) and words[at].startswith("--"):
        alone = "=" in words[at] or words[at] in ("--strict", "--help")
        at += 1 if alone else 2
    if words[at : at + 1] == ["-h"]:
        at += 1
    return words[:at], words[at:]


def main():
    words, program = split(sys.argv[1:])
    args = parser().parse_args(words)
    if args.do is run and not program:
        args.parser.error("no program to run")
    args.program = program
    try:
        args.do(args)
    except OSError as error:
        sys.exit(f"freelist: {error}")


if __name__ == "__main__":
    main()
