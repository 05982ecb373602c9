# SPDX-License-Identifier: GPL-2.0
# A part of Python's own test suite: containers, buffers, threads, forks.
# alone
exec python3 -m test --timeout 600 -q test_gc test_array test_zlib test_mmap test_thread test_bytes test_fork1 \
	test_list test_memoryview
