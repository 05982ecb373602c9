# SPDX-License-Identifier: GPL-2.0
# A part of Python's own tests of multiprocessing, by fork and by spawn.
# alone
exec python3 -m test --timeout 300 -q -m 'WithProcessesTestArray' -m 'WithProcessesTestValue' \
	-m 'WithProcessesTestPool.test_map*' -m 'WithProcessesTestSharedMemory' -m 'WithProcessesTestQueue.test_put' \
	test.test_multiprocessing_fork.test_processes test.test_multiprocessing_spawn.test_processes
