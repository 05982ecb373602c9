# SPDX-License-Identifier: GPL-2.0
# Arrays of megabytes that children get by fork (their own copy) and by spawn (sent to them).
cat >children.py <<'PYTHON'
import array
import multiprocessing as mp
import os
import zlib

data = None

def work(argument):
    number, given = argument
    mine = data if given is None else given
    before = zlib.crc32(mine)
    mine[number] = number + 1          # its own copy
    return number, before, zlib.crc32(mine), len(mine)

if __name__ == "__main__":
    data = array.array("q", range(300_000))
    start = zlib.crc32(data)
    with mp.get_context("fork").Pool(3) as pool:
        print(sorted(pool.map(work, [(n, None) for n in range(6)], chunksize=6)))
    with mp.get_context("spawn").Pool(2) as pool:
        print(sorted(pool.map(work, [(n, array.array("q", range(100_000))) for n in range(3)])))
    assert zlib.crc32(data) == start, "a child wrote to its parent's memory"
    queue = mp.get_context("fork").Queue()
    child = mp.get_context("fork").Process(target=lambda: queue.put(bytes(data)))
    child.start()
    print(zlib.crc32(queue.get()), child.join(), child.exitcode)
    pid = os.fork()
    if pid == 0:
        data.extend(data)
        os._exit(len(data) % 251)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(data))
PYTHON
exec python3 children.py
