# SPDX-License-Identifier: GPL-2.0
# Two workers, compressed and plain, ranges of a large file, a reload while it serves.
mkdir -p www logs body
seq 1 300000 >www/numbers.txt
head -c 3000000 /dev/zero | tr '\0' x >www/large.bin
cat >nginx.conf <<CONF
user root;
worker_processes 2;
pid $PWD/nginx.pid;
error_log $PWD/logs/error.log;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path $PWD/body;
	types { text/plain txt; }
	gzip on;
	gzip_types text/plain;
	gzip_buffers 4 128k;
	output_buffers 2 256k;
	server { listen unix:$PWD/nginx.sock; root $PWD/www; }
}
CONF
nginx -p "$PWD" -c "$PWD/nginx.conf"
get() { curl -s --unix-socket nginx.sock "$@"; }
for _ in 1 2 3; do
	get http://localhost/numbers.txt | md5sum
	get --compressed http://localhost/numbers.txt | md5sum
	get -r 1000000-1999999 http://localhost/large.bin | md5sum
	get -o /dev/null -w '%{http_code}\n' http://localhost/nothing
	nginx -p "$PWD" -c "$PWD/nginx.conf" -s reload
	sleep 1
done
for _ in $(seq 20); do get http://localhost/large.bin | md5sum & done | sort | uniq -c
nginx -p "$PWD" -c "$PWD/nginx.conf" -s stop
while [ -e nginx.pid ]; do sleep 0.1; done
