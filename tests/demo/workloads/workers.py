# SPDX-License-Identifier: GPL-2.0
"""Forks workers that read a part of their parent's large blocks, all at a time, as data loaders do.

Arguments: MiB that are live, MiB that each worker reads, workers."""

import os
import sys

from mark import mark

MIB = 1 << 20

blocks = [bytearray(b"\1") * MIB for _ in range(int(sys.argv[1]))]
read = blocks[: int(sys.argv[2])]
mark("filled")
(have_read, read_end), (wait, go_on) = os.pipe(), os.pipe()
workers = []
for _ in range(int(sys.argv[3])):
    worker = os.fork()
    if worker == 0:
        os.close(go_on)
        wrong = sum(block.count(1) != MIB for block in read)
        os.write(read_end, b"r")
        os.read(wait, 1)
        os._exit(wrong)
    workers.append(worker)
for _ in workers:
    os.read(have_read, 1)
mark("read")
os.close(go_on)
mark("ended", " ".join(str(os.waitpid(worker, 0)[1]) for worker in workers))
