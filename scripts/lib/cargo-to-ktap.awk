# SPDX-License-Identifier: GPL-2.0
#
# Converts the output of cargo test to KTAP: a document for each test binary. Other
# lines become diagnostic lines. The parser reports a document with fewer results
# than its plan (a binary that died). A script, because cargo test prints JSON only with
# an unstable compiler and Debian has no package of cargo-nextest.

/^ +Running |^ +Doc-tests / {
	suite = $NF
	gsub(/.*\/|-[0-9a-f]+\)$|\)$/, "", suite)
	if ($1 == "Doc-tests") suite = suite "_doc"
}

/^running [0-9]+ tests?$/ {
	finish()
	if ($2 == 0) next
	open = suite
	number = 0; failures = 0
	printf "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: %s\n    1..%d\n", suite, $2
	next
}

/^test .* \.\.\. (ok|FAILED|ignored)/ {
	name = $0
	sub(/^test /, "", name)
	sub(/ \.\.\. .*/, "", name)
	gsub(/ /, "_", name)
	failing = / \.\.\. FAILED/
	failures += failing
	printf "    %sok %d %s%s\n", failing ? "not " : "", ++number, name, / \.\.\. ignored/ ? " # SKIP ignored" : ""
	next
}

# A compile error is a failed suite.
/^error(\[E[0-9]+\])?:/ { finish(); if ($0 !~ /test failed|target failed/) broken = 1 }

{ print "# " $0 }

END {
	finish()
	if (broken) print "KTAP version 1\n1..1\nnot ok 1 cargo_build"
}

function finish() {
	if (open != "") printf "%sok 1 %s\n", failures ? "not " : "", open
	open = ""
}
