# stress-ng's malloc stressors, which verify what they wrote.
# alone
stress-ng --temp-path . --malloc 2 --malloc-bytes 48M --malloc-max 400 --malloc-ops 30000 --malloc-touch --verify &&
	stress-ng --temp-path . --malloc 2 --malloc-pthreads 3 --malloc-bytes 16M --malloc-max 200 --malloc-ops 20000 \
		--malloc-trim --verify &&
	stress-ng --temp-path . --malloc 1 --malloc-thresh 64K --malloc-bytes 32M --malloc-ops 10000 --malloc-zerofree --verify
