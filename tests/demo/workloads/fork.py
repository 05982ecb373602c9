# SPDX-License-Identifier: GPL-2.0
"""Forks once, with so many MiB of live large blocks: what a child costs that ends at once."""

import os
import sys

from mark import mark

MIB = 1 << 20

blocks = [bytearray(os.urandom(1)) * MIB for _ in range(int(sys.argv[1]))]
mark("filled")
child = os.fork()
if child == 0:
    os._exit(sum(block[-1] != block[0] for block in blocks))
_, status = os.waitpid(child, 0)
mark("forked", str(status))
