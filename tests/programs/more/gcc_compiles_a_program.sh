# SPDX-License-Identifier: GPL-2.0
# A C program of 300 functions, with and without optimisation, and what it prints.
{
	echo '#include <stdio.h>'
	for ((i = 0; i < 300; i++)); do
		echo "unsigned f$i(unsigned x) { for (unsigned k = 0; k < x % 7; k++) x = x * 31 + k * $i; return x ^ $i; }"
	done
	echo 'int main(void) { unsigned x = 1;'
	for ((i = 0; i < 300; i++)); do echo "x = f$i(x);"; done
	echo 'printf("%u\n", x); return 0; }'
} >program.c
for level in 0 2; do
	gcc -g -O$level -o program$level program.c && ./program$level
	gcc -O$level -S -o - program.c | md5sum
done
