# SPDX-License-Identifier: GPL-2.0
# Subshells, pipes, command substitution, here documents, background jobs.
count=0
for number in $(seq 1 12); do
	word=$(echo "number $number" | tr a-z A-Z | sed 's/NUMBER/number/')
	count=$((count + ${#word}))
done
echo "$count"
# A variable that is large itself, in a shell that forks.
text=$(head -c 400000 /dev/zero | tr '\0' x)
echo "${#text}"
(
	text+=y
	echo "${#text} ${text: -1}"
	(text=${text:200000}z && echo "${#text} ${text: -2}")
)
echo "${#text} ${text: -1}"
for job in 1 2 3 4; do (sleep 0.0$job && echo "$text" | wc -c >job.$job) & done
wait
cat job.*
while read -r line; do echo "got ${#line}"; done <<<"$text"
mapfile -t lines < <(seq 1 20000)
echo "${#lines[@]} ${lines[19999]}"
exit 7
