# A part of Python's own tests of multiprocessing, by fork and by spawn.
# alone
exec python3 -m test --timeout 600 -q -m 'WithProcessesTest[QCEAP]*' -m 'WithProcessesTestSharedMemory' \
	test.test_multiprocessing_fork.test_processes test.test_multiprocessing_spawn.test_misc
