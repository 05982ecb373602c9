# SPDX-License-Identifier: GPL-2.0
# A part of Python's own tests of subprocess.
# alone
# One lowers the limit of open files and counts what is left open: the arena's file is, as Valgrind's
# would be. One changes its user to one without permission to open the device, and is told so.
export FREELIST_QUIET=1
exec python3 -m test --timeout 300 -q -m POSIXProcessTestCase -i '*test_close_fds_after_preexec' \
	-i '*when_max_fd_is_lowered' test_subprocess
