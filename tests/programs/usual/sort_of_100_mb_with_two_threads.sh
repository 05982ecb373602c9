# SPDX-License-Identifier: GPL-2.0
# A million lines of 100 bytes.
awk 'BEGIN { for (n = 0; n < 1000000; n++) printf "%09d %089d\n", n * 7919 % 1000003, n }' >lines
sort --parallel=2 -S 150M lines | md5sum
sort --parallel=2 -S 20M -k2,2r lines | head -n 1000 | md5sum
