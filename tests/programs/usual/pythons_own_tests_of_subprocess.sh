# SPDX-License-Identifier: GPL-2.0
# A part of Python's own tests of subprocess.
# alone
# A skipped test lowers the limit of open files and counts open files: the arena's file remains, as Valgrind's
# would. Another changes to a user without permission for the device, and the library would report that.
export FREELIST_QUIET=1
exec python3 -m test --timeout 300 -q -m POSIXProcessTestCase -i '*test_close_fds_after_preexec' \
	-i '*when_max_fd_is_lowered' test_subprocess
