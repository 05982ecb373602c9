# SPDX-License-Identifier: GPL-2.0
#
# Two ways to build. Without KDIR everything runs in a build root of its own
# (scripts/), against the kernels that qemu/versions names. With KDIR, the build
# tree of a kernel with Rust, freelist.ko is made in the ordinary way:
#
#	make KDIR=/path/to/build [W=1] [CLIPPY=1]

KERNEL ?= $(shell sed -n 's/^series //p' qemu/versions | sed -n 1p)
export KERNEL

ifdef KDIR
.DEFAULT_GOAL := modules
# All other targets are for the kernels of qemu/versions.
takes-kdir := help modules modules_install install uninstall clippy doc rust-analyzer fmt clean
refused := $(filter-out $(takes-kdir),$(MAKECMDGOALS))
ifneq ($(refused),)
$(error freelist: KDIR=$(KDIR) is for $(takes-kdir), not for $(refused): leave it out)
endif
ifeq ($(wildcard $(KDIR)/.),)
$(error freelist: KDIR=$(KDIR): there is no such directory)
endif
else
.DEFAULT_GOAL := help
endif

PHONY := help run demo test bench readme-figures trust planted fuzz soak shell update cache-clean setup install uninstall deb
help:
	@echo 'freelist: a power-of-two freelist allocator in the kernel'
	@echo
	@echo '  make run          load the module into a Debian kernel, serve a training run'
	@echo '  make demo         unchanged programs under freelist and other allocators (FULL=1: limits too)'
	@echo '  make test         all tests; ends with "N passed, N failed"'
	@echo '  make bench        what it costs beside other allocators, as a table and plots'
	@echo '  make readme-figures  shows the plots of the last whole make bench and make demo in the texts'
	@echo '  make trust        all tests, the long ones too, and a table of all figures'
	@echo '  make planted      plants bugs, and names the tests that see them'
	@echo '  make fuzz         ten minutes of calls at random (SCALE=N: N times that)'
	@echo '  make soak         half an hour of everything that is random (SCALE=N: N times that)'
	@echo '  make shell        a shell in a VM with the module loaded'
	@echo '  make install      as root: module, freelistctl, libraries on this machine (DESTDIR=, PREFIX=;'
	@echo '                    STAGED=yes: builds nothing, what scripts/package/stage has built)'
	@echo '  make uninstall    as root: takes all of that away'
	@echo '  make deb          Debian packages of the same, in build/deb'
	@echo '  make modules      build/$(KERNEL)/freelist.ko, for that Debian kernel'
	@echo '  make clippy fmt doc'
	@echo '  make update       look for newer kernels in the archive'
	@echo '  make clean        remove build/'
	@echo '  make cache-clean  remove the cache: build root, kernel trees'
	@echo
	@echo '  KERNEL=7.3|7.2|debug  the kernel of run, shell and modules (now $(KERNEL)); of install and'
	@echo '                    deb, by default the one that runs here: 7.3.4+deb13-amd64, or a series'
	@echo '  KDIR=DIR          for modules (the default then), modules_install, install, clean, doc,'
	@echo '                    rust-analyzer, fmt: your own kernel tree, with W=1, CLIPPY=1'

# These are for the running kernel, unless KERNEL names another.
named-kernel = $(if $(filter file,$(origin KERNEL)),,--kernel $(KERNEL))
install-to = $(if $(DESTDIR),--destdir $(DESTDIR))
install:
	@scripts/package/install $(if $(KDIR),--kdir $(KDIR),$(named-kernel)) $(install-to) \
		$(if $(PREFIX),--prefix $(PREFIX)) $(if $(LIBDIR),--libdir $(LIBDIR)) $(if $(STAGED),--staged)

uninstall:
	@scripts/package/install --uninstall $(install-to)

deb:
	@scripts/package/deb $(named-kernel)

run:
	@scripts/run --kernel $(KERNEL)

demo:
	@scripts/demo

test:
	@scripts/test

bench:
	@scripts/bench

readme-figures:
	@scripts/bench --renew-plots
	@scripts/demo --renew-plots

trust:
	@scripts/trust

fuzz:
	@scripts/test fuzz

soak:
	@scripts/test soak

planted:
	@scripts/planted $(NAME)

shell:
	@scripts/vm --kernel $(KERNEL)

setup:
	@scripts/setup $(KERNEL)

update:
	@scripts/update

cache-clean:
	@scripts/cache-clean

PHONY += fmt clippy
fmt:
	@scripts/fmt

ifdef KDIR

PHONY += modules modules_install clean rust-analyzer doc
kbuild = $(MAKE) -C $(KDIR) M=$(CURDIR)

modules modules_install rust-analyzer: kernel-tree
	$(kbuild) $@

clippy: kernel-tree
	$(kbuild) CLIPPY=1 modules

doc: kernel-tree
	$(kbuild) FREELIST_DOC=$(CURDIR)/build/doc modules

clean:
	$(kbuild) clean
	rm -rf build

# The compiler that kbuild takes: it does not look at the environment's.
PHONY += kernel-tree
kernel-tree:
	@scripts/lib/check-kdir $(KDIR) $(if $(findstring command line,$(origin RUSTC)),$(RUSTC),rustc)

else

PHONY += modules clean rust-analyzer doc modules_install
in-root = scripts/in-root --kernel $(KERNEL) sh -ec

modules:
	@scripts/build module=$(KERNEL)
	@echo 'freelist: build/$(KERNEL)/freelist.ko is for Linux $(KERNEL)'

# Their results are for the tools of this machine.
modules_install rust-analyzer:
	@echo 'freelist: $@ needs a kernel tree of your own: make KDIR=/path/to/build $@' >&2; exit 1

clippy:
	@scripts/lint --kernel $(KERNEL)

doc:
	@$(in-root) 'mkdir -p build/doc build/doc-tree && make -C /kernel/build \
		M=/freelist MO=/freelist/build/doc-tree $$KERNEL_ARGS FREELIST_DOC=/freelist/build/doc'
	@scripts/in-root sh -c 'cd src && cargo doc --locked --quiet --no-deps --features freelist/ctl --target-dir ../build/cargo \
		&& cp -r ../build/cargo/doc/freelist* ../build/doc/'
	@echo 'freelist: build/doc/freelist_main/index.html is the module, build/doc/freelist/index.html the client'

clean:
	rm -rf build

endif

.PHONY: $(PHONY)
