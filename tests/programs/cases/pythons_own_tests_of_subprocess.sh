# A part of Python's own tests of subprocess.
# alone
exec python3 -m test --timeout 600 -q -m 'POSIXProcessTestCase' -i '*test_close_fds_after_preexec' test_subprocess
