# SPDX-License-Identifier: GPL-2.0
# Commits, branches, a merge, a clone, packing, a look through history.
git init -q -b main repository && cd repository
git config user.name somebody && git config user.email somebody@example.org
export GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'
for number in 1 2 3 4 5 6; do
	seq 1 $((number * 20000)) >numbers
	head -c $((number * 100000)) /usr/bin/perl >binary
	git add . && git commit -q -m "commit $number"
done
git checkout -q -b other HEAD~2 && echo other >other && git add other && git commit -q -m other
git checkout -q main && git merge -q -m merge other
git log --format='%H %s' --stat
git gc -q && git fsck --full --strict && git count-objects -v | grep -v size
cd .. && git clone -q repository clone && git -C clone diff --stat HEAD~3
git -C clone blame numbers | tail -n 2
git -C clone grep -c 9999 HEAD~1 -- numbers
