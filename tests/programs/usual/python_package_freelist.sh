# SPDX-License-Identifier: GPL-2.0
# The Python package: runs a program with its large blocks in an arena, shows what it holds, and trims it.
# alone
set -e
export FREELIST_LIBRARY=$LD_PRELOAD PYTHONPATH=/work/python
unset LD_PRELOAD
cat >train.py <<'PYTHON'
import os
import subprocess
import sys

import freelist

MIB = 1 << 20
assert freelist.is_active() and sys.argv[1:] == ["--limit", "1"], sys.argv
before = sum(arena["live_bytes"] for arena in freelist.stats())
blocks = [bytearray(b"x") * (5 * MIB) for _ in range(4)]
(arena,) = freelist.stats()
assert arena["live_bytes"] - before >= 20 * MIB and arena["held_bytes"] >= 20 * MIB, arena
assert arena["limit_bytes"] == 64 * MIB, arena
# Another process reads the same counters.
shown = subprocess.run([sys.executable, "-m", "freelist", "stat", str(os.getpid())], capture_output=True, text=True)
assert f"arena {arena['arena']}\n" in shown.stdout and f"{64 * MIB:,}" in shown.stdout, shown
# Memory that a program needs again and again stays with it until a trim.
for _ in range(4):
    del blocks
    (arena,) = freelist.stats()
    blocks = [bytearray(b"x") * (5 * MIB) for _ in range(4)]
assert arena["live_bytes"] - before < 5 * MIB and arena["free_bytes"] > 15 * MIB, arena
del blocks
assert freelist.trim()
(arena,) = freelist.stats()
assert arena["free_bytes"] < MIB, arena
# The C library serves a block that the arena cannot.
bytearray(80 * MIB)
sys.exit(7)
PYTHON
status=0
python3 -m freelist run --limit 64M train.py --limit 1 || status=$?
[ "$status" = 7 ]
# With --strict the block is refused.
if python3 -m freelist run --limit 64M --strict -c 'bytearray(80 << 20)' 2>said; then exit 1; fi
grep -q '^MemoryError' said
# `run` becomes the program, in the same process.
[ "$(python3 -m freelist run -c 'import os; print(os.getpid())' & echo $! >pid; wait)" = "$(cat pid)" ]
# Without the library.
status=0
FREELIST_LIBRARY=/nonexistent.so python3 -m freelist run train.py 2>said || status=$?
[ "$status" = 1 ] && grep -q '^freelist: .* was not found in /nonexistent.so: install it' said
