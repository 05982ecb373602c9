# SPDX-License-Identifier: GPL-2.0
# stress-ng's malloc stressors, which verify their blocks.
# alone
stress-ng --temp-path . --malloc 2 --malloc-bytes 16M --malloc-max 100 --malloc-ops 2000 --malloc-touch --verify &&
	stress-ng --temp-path . --malloc 2 --malloc-pthreads 2 --malloc-bytes 8M --malloc-max 60 --malloc-ops 1500 \
		--malloc-trim --verify &&
	stress-ng --temp-path . --malloc 1 --malloc-thresh 64K --malloc-bytes 8M --malloc-ops 1000 --malloc-zerofree --verify
