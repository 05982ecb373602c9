# SPDX-License-Identifier: GPL-2.0
# Threads that make, resize and hand on large buffers; compressed data is the same when it is expanded.
exec python3 - <<'PYTHON'
import queue, threading, zlib, hashlib, mmap, bz2, lzma

handed, results = queue.Queue(), []

def make(seed):
    for number in range(12):
        buffer = bytearray((seed * 7 + number) % 251 for _ in range(70_000))
        buffer *= number % 5 + 1
        del buffer[50_000:60_000]
        handed.put((seed, number, buffer))
    handed.put(None)

def take():
    while (item := handed.get()) is not None:
        seed, number, buffer = item
        packed = zlib.compress(buffer)
        assert zlib.decompress(packed) == buffer
        results.append((seed, number, hashlib.sha256(buffer).hexdigest()[:12]))

threads = [threading.Thread(target=make, args=(seed,)) for seed in (1, 2, 3)]
threads += [threading.Thread(target=take) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
for result in sorted(results):
    print(*result)
text = b"abcdefgh" * 200_000
assert bz2.decompress(bz2.compress(text)) == text and lzma.decompress(lzma.compress(text)) == text
with mmap.mmap(-1, 1 << 20) as memory:
    memory[:] = text[: 1 << 20]
    print(zlib.crc32(memory))
print(len(str(7 ** 100_000)), len("x" * 10_000_000), sum(list(range(1_000_000))))
PYTHON
