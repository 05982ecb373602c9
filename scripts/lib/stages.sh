# SPDX-License-Identifier: GPL-2.0
#
# The stages of scripts/test. A stage is a row of the table and a function stage_NAME
# that prints KTAP documents; a new one needs nothing else.
#
# Sourced after common.sh.
# shellcheck shell=bash

# The long stages do N times the work.
SCALE=${SCALE:-1}

# The columns are NAME and
#
#	SET	usual: in `make test`, or long
#	NEEDS	the products that scripts/build makes before it, with commas
#	KERNELS	the kernels on which it runs, one after the other: `each` series of
#		qemu/versions, the `default` one, debug, nothp; the function gets the kernel
#		as its argument. Or -: it runs once
#	UNIT	the unit of its progress: see count_UNIT
#	COUNT	how many units a run has, or ?, and
#	SECONDS	how long it takes, or -: shown until this clone has a run of its own
#	TEXT	the subject of the tests, %k being the kernel
#
STAGES='
style            usual  module=each                                                -              tests     3    143  format and lints
host             usual  -                                                          -              tests     514  286  the crates on this machine
scripts          usual  module=each,init                                           -              tests     58   184  scripts/ themselves
kunit            usual  module=debug,init                                          -              tests     27   34   KUnit on the debug kernel
stock            usual  module=each,init,programs,header,c-library,snippets        each           tests     794  147  user space on %k
small            usual  module=default,init,programs                               -              tests     9    10   user space on a small machine
nodes            usual  module=default,init,programs                               -              tests     18   29   user space on a machine with two nodes of memory
cost             usual  module=default,init,programs,c-library                     -              tests     16   25   what calls cost, where the clock counts instructions
debug            usual  module=debug,init,programs,header,c-library,snippets       -              tests     794  593  user space on the debug kernel
programs         usual  module=default,init,programs,c-library,snippets,root=programs -            tests     15   239  programs of Debian with libfreelist_malloc.so
packages         usual  module=default,tools                                       -              tests     9    73   make install, and the Debian packages
planted          usual  -                                                          -              tests     182  420  bugs that this machine'\''s tests see
system           long   module=default,tools,init,c-library,root=system            default        tests     30   -    our packages and make install in a Debian with its own init, %k
nothp            long   module=nothp,init,programs,header,c-library,snippets       nothp          tests     755  -    user space on a kernel without huge pages
tracers          long   module=default,init,programs,c-library,root=tracers        default        tests     7    -    trace-cmd, perf and bpftrace on the tracepoints of %k
enumerate        long   -                                                          -              tests     2    -    every sequence of at most 8 operations
exhaustive       long   module=default,init,programs                               -              tests     1    -    every order of release, in the kernel
engine_coverage  long   -                                                          -              tests     1    -    what the engine'\''s tests reach
mutants          long   -                                                          -              changes   2400 -    changes of the engine that its tests notice
miri             long   -                                                          -              tests     ?    -    the engine'\''s tests under Miri
planted_all      long   module=default,module=debug,init,programs,header,c-library -              tests     120  -    bugs that some test sees
more_programs    long   module=default,init,c-library,root=more_programs           -              tests     7    -    compilers and servers with libfreelist_malloc.so
fuzz             long   module=debug,init,programs                                 -              programs  2700 -    calls at random
module_coverage  long   kcov,init,programs                                         -              tests     420  -    what of the module the tests reach
model            long   module=default,init,programs                               default        tests     1    -    a million operations and their model
stress           long   module=each,init,programs                                  each           tests     1    -    a minute of all that happens to memory at once, on %k
storm            long   module=default,module=debug,init,programs                  default,debug  tests     4    -    storms on %k
soak             long   module=debug,init,programs                                 -              tests     528  -    a long time of all that is random
'

# stages_of SET: prints the names of its stages; for `all`, those of all sets.
stages_of() { awk -v set="$1" 'NF && (set == "all" || $2 == set) { print $1 }' <<<"$STAGES"; }

# read_stage NAME: sets stage_set, stage_needs, stage_kernels, stage_unit, stage_count,
# stage_seconds and stage_text.
read_stage() {
	read -r _ stage_set stage_needs stage_kernels stage_unit stage_count stage_seconds stage_text \
		< <(awk -v name="$1" '$1 == name' <<<"$STAGES")
}

kind_stage() {
	[ "$1" = all ] || stages_of all | grep -qxF -e "$1" ||
		echo "there is no stage $1: scripts/test --list has them"
}

# count_UNIT FILE: prints how many units the KTAP file of a running stage has.
count_tests() { grep -cE '^ +(not )?ok ' "$1"; }
count_programs() { sed -nE 's/^ *# programs ([0-9]+)$/\1/p' "$1" | tail -n 1; }
count_changes() { wc -l <build/mutants/outcomes; }

# report WHAT...: prints a report on the results of the tests.
report() {
	scripts/in-root cargo run --quiet --locked --manifest-path src/Cargo.toml --package freelist-report -- "$@"
}

stage_style() {
	local number=0 check
	printf 'KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: freelist_style\n    1..3\n'
	for check in "fmt --check" "bindings --check" lint; do
		number=$((number + 1))
		# shellcheck disable=SC2086 # two words
		if scripts/$check >&2; then echo -n '    '; else echo -n '    not '; fi
		echo "ok $number ${check% *}"
	done
	echo 'ok 1 freelist_style'
}

stage_host() {
	local status=0
	scripts/in-root sh -c 'cd src && cargo test --locked --workspace --features freelist/ctl --no-fail-fast 2>&1' |
		awk -f scripts/lib/cargo-to-ktap.awk || status=$?
	report prior-art --figures || status=$?
	return "$status"
}

stage_scripts() {
	local suite
	for suite in licences options progress make cache vm; do "tests/scripts/$suite"; done
}

stage_packages() { tests/scripts/package; }
# The packages are made for the kernel that boots.
stage_system() {
	tests/scripts/dkms "$1"
	tests/scripts/system "$1"
}

stage_tracers() {
	scripts/vm --kernel "$1" --root tracers --cpus 2 --memory 2048 --timeout 3600 --add tests/tracers --add tests/scripts/ktap.sh \
		--add build/bin/freelist-device-tests --add build/bin/freelistctl --add build/client/libfreelist_malloc.so -- \
		sh -c 'cp ktap.sh tracers/ && exec tracers/run'
}

# Each suite of the sources must be in the results: KUnit does not report a suite that
# was not compiled.
stage_kunit() {
	local suites
	mapfile -t suites < <(grep -rhoE '^#\[(kernel::)?(macros::)?kunit_tests\(\w+' src --include='*.rs' |
		sed 's/.*(//' | sort)
	scripts/vm --kernel debug --append kunit.enable=1 -- sh -c 'for suite; do
		echo "# suite $suite"; cat /sys/kernel/debug/kunit/$suite/results; done' sh "${suites[@]}"
}

# user_space KERNEL MIB [COMMAND OTHERS...]: runs the device tests, the C and C++ programs over the
# contract's header, and those over the C library. Then runs the shell commands COMMAND, which need the
# files OTHERS.
user_space() {
	local programs=(build/bin/freelist-device-tests build/header/header-* build/client/client-*) add=() program
	for program in "${programs[@]}" build/bin/{freelist-global,freelistctl,example-*} build/header/calls-* \
		build/client/libfreelist_{client,malloc,plugin}.so.0 build/snippets "${@:4}"; do add+=(--add "$program"); done
	# The statuses are ignored, as the KTAP has the results; a program without KTAP fails. The time-out is
	# for a busy machine: a run takes some minutes.
	scripts/vm --kernel "$1" --cpus 2 --memory "$2" --timeout 3600 "${add[@]}" -- sh -c '
		for program; do echo "# suite $program"; ./$program; done
		echo "# suite snippets"; snippets/run freelist_snippets -; '"${3:-true}; true" sh "${programs[@]##*/}"
}
# The memory suffices for the largest block.
stage_stock() { user_space "$1" 3072; }
# Runs the suites for a machine with little memory, on one.
stage_small() {
	scripts/vm --cpus 2 --memory 256 --timeout 300 --add build/bin/freelist-device-tests -- sh -c \
		'./freelist-device-tests freelist_pressure freelist_growing; true'
}
# Runs the suites in which the kernel moves memory or takes it, on little memory in two nodes.
stage_nodes() {
	scripts/vm --cpus 2 --memory 512 --nodes 2 --timeout 600 --add build/bin/freelist-device-tests -- sh -c \
		'./freelist-device-tests freelist_nodes freelist_pressure freelist_cgroup freelist_stress; true'
}
stage_cost() {
	scripts/vm --icount --memory 1024 --timeout 600 --add build/bin/freelist-device-tests \
		--add build/client/client-forks --add build/client/libfreelist_malloc.so.0 -- sh -c \
		'export FREELIST_ICOUNT=1; ./freelist-device-tests freelist_cost --timeout 300; ./client-forks; true'
}
# programs ROOT CASES [COMMAND OPTION...]: runs the programs of tests/programs/CASES in the root ROOT; then
# the shell command COMMAND, with the OPTIONs of scripts/vm.
programs() {
	scripts/vm --root "$1" --cpus 2 --memory 2048 --timeout 6000 \
		--add tests/programs --add src/client/python --add build/client/libfreelist_malloc.so "${@:4}" -- sh -c \
		'programs/run /work/libfreelist_malloc.so "/work/programs/$1"; '"${3:-true}" sh "$2"
}
# Runs also the scripts in README and in the manual pages.
stage_programs() {
	programs programs usual 'echo "# suite snippets"; snippets/run freelist_scripts py sh' \
		--add build/bin/freelistctl --add build/snippets
}
stage_more_programs() { programs more_programs more; }
stage_nothp() { user_space "$1" 1024; }
fuzzer=(build/bin/freelist-fuzz tests/fuzz/corpus)
stage_debug() {
	user_space debug 1024 'echo "# suite fuzz"; ./freelist-fuzz --corpus corpus --seconds 15' "${fuzzer[@]}"
}
stage_fuzz() {
	local seconds=$((600 * SCALE))
	scripts/vm --kernel debug --cpus 2 --memory 1024 --timeout $((seconds + 600)) \
		--add build/bin/freelist-fuzz --add tests/fuzz/corpus -- sh -c \
		'./freelist-fuzz --corpus corpus --keep --seconds "$1"; true' sh "$seconds"
}
# The suites for little memory have a VM of their own; all suites run in the other one.
stage_module_coverage() {
	local module=build/kcov/freelist.ko tests='./freelist-device-tests --coverage' status=0
	scripts/vm --kernel debug --module "$module" --cpus 2 --memory 400 --timeout 600 \
		--add build/bin/freelist-device-tests -- sh -c \
		"echo '# suite little'; $tests freelist_pressure freelist_growing; true"
	scripts/vm --kernel debug --module "$module" --cpus 2 --memory 1024 --timeout 3600 \
		--add build/bin/freelist-device-tests --add build/bin/freelist-global --add build/bin/freelistctl --add build/bin/example-arena \
		--add build/bin/example-global --add build/bin/example-heap --add build/bin/freelist-fuzz \
		--add tests/fuzz/corpus -- sh -c \
		"echo '# suite all'; $tests; echo '# suite fuzz'; ./freelist-fuzz --coverage --corpus corpus --seconds 60; true"
	report module-coverage "$module" build/test/module_coverage.ktap || status=$?
	return "$status"
}

stage_exhaustive() {
	scripts/vm --cpus 2 --timeout 900 --add build/bin/freelist-device-tests -- sh -c \
		'./freelist-device-tests --scale 125 --timeout 600 freelist_exhaustive; true'
}
# A hundred times the work of the stage `stock`; ten times on the debug kernel.
stage_storm() {
	local scale=$((100 * SCALE))
	if [ "$1" = debug ]; then scale=$((10 * SCALE)); fi
	scripts/vm --kernel "$1" --cpus 2 --memory 1024 --timeout 7200 --add build/bin/freelist-device-tests -- sh -c \
		'./freelist-device-tests --scale "$1" --timeout 3600 freelist_storm \
			freelist_unload/a_module_that_is_loaded_and_unloaded_holds_nothing; true' sh "$scale"
}
stage_stress() {
	local scale=$((6 * SCALE))
	scripts/vm --kernel "$1" --cpus 2 --memory 1024 --timeout $((60 * scale + 300)) --add build/bin/freelist-device-tests -- sh -c \
		'./freelist-device-tests --scale "$1" --timeout $((60 * $1)) freelist_stress; true' sh "$scale"
}
stage_model() {
	scripts/vm --kernel "$1" --cpus 2 --memory 1024 --timeout 7200 --add build/bin/freelist-device-tests -- sh -c \
		'./freelist-device-tests --scale "$1" --timeout 7000 freelist_model; true' sh $((125 * SCALE))
}
stage_soak() {
	local minutes=$((30 * SCALE))
	scripts/vm --kernel debug --cpus 2 --memory 1024 --timeout $((minutes * 60 + 1800)) \
		--add build/bin/freelist-device-tests -- sh -c '
		end=$(($(date +%s) + $1 * 60))
		while [ "$(date +%s)" -lt "$end" ]; do
			echo "# suite soak"
			./freelist-device-tests --scale 2 --timeout 600 freelist_storm freelist_random freelist_concurrency \
				freelist_races freelist_waiting freelist_wake_ups freelist_signals freelist_poll freelist_trim
		done
		echo "# trust: soak_minutes $1 minutes >=30"' sh "$minutes"
}
stage_planted() {
	scripts/planted --check
	scripts/planted --host
}
stage_planted_all() { scripts/planted; }
stage_enumerate() { scripts/lib/engine enumerate; }
stage_engine_coverage() { scripts/lib/engine coverage; }
stage_mutants() { scripts/lib/engine mutants; }
stage_miri() { scripts/lib/engine miri; }
