# SPDX-License-Identifier: GPL-2.0
# 300 values of 100 KB; while a child saves them all are overwritten: the file has the old ones.
server() {
	redis-server --port 0 --unixsocket "$PWD/$1.sock" --dir "$PWD" --dbfilename "$2" --save '' --daemonize no \
		--loglevel warning --enable-debug-command local >"$1.log" 2>&1 &
	until redis-cli -s "$1.sock" ping >/dev/null 2>&1; do sleep 0.1; done
}
# fill BYTE: a value of that byte for every key, by the protocol.
fill() {
	local value i
	value=$(head -c 100000 /dev/zero | tr '\0' "$1")
	for ((i = 0; i < 300; i++)); do
		printf '*3\r\n$3\r\nSET\r\n$%d\r\nkey:%d\r\n$100000\r\n%s\r\n' $((4 + ${#i})) "$i" "$value"
	done | redis-cli -s one.sock --pipe | tail -n 1
}
server one one.rdb
fill a
redis-cli -s one.sock debug digest
redis-cli -s one.sock bgsave
fill b
redis-cli -s one.sock debug digest
while redis-cli -s one.sock info persistence | grep -q 'rdb_bgsave_in_progress:1'; do sleep 0.2; done
redis-cli -s one.sock info persistence | grep -o 'rdb_last_bgsave_status:ok'
server two one.rdb
redis-cli -s two.sock debug digest
redis-cli -s two.sock dbsize
redis-cli -s one.sock append key:7 "$(head -c 70000 /dev/zero | tr '\0' c)"
redis-cli -s one.sock memory purge
redis-cli -s one.sock flushall
redis-cli -s one.sock dbsize
redis-cli -s one.sock shutdown nosave
redis-cli -s two.sock shutdown nosave
wait
