# SPDX-License-Identifier: GPL-2.0
# jemalloc and mimalloc have the small blocks if they are preloaded after it.
for library in libjemalloc.so.2 libmimalloc.so.3; do
	LD_PRELOAD=${LD_PRELOAD:+$LD_PRELOAD:$library} python3 - <<'PYTHON'
import os
import zlib
small = [bytes([n % 251]) * (n % 3000) for n in range(20000)]
large = [bytearray(70_000 + 1000 * n) for n in range(40)]
for n, buffer in enumerate(large):
    buffer[:] = bytes([n]) * (len(buffer) // 2)
    buffer.extend(small[n * 3])
preloaded = os.environ.get("LD_PRELOAD", "").split(":")
maps = open("/proc/self/maps").read()
assert all(name.split("/")[-1] in maps for name in preloaded), maps
print(zlib.crc32(b"".join(small)), zlib.crc32(b"".join(large)))
PYTHON
done
