# SPDX-License-Identifier: GPL-2.0 OR MIT
#
# What a person types. The kernel's build system reads Kbuild, not this file. The work is in scripts/.

.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# For the scripts, whether given on the command line or in the environment.
export KDIR KERNEL KERNEL_SRC QEMU DEVICE DEBIAN_MIRROR DEBIAN_SECURITY_MIRROR

scripts := $(CURDIR)/scripts

.PHONY: help setup demo test test-stock test-debug shell bench check modules clean clean-cache distclean

help:
	@echo 'Live-migratable VFIO devices in Rust, with the test machine they run in.'
	@echo
	@echo '  make demo      a virtual machine with our serial card is live-migrated before your eyes'
	@echo '                 (DEVICE=blk: with a disk, on which it writes files meanwhile; a picture shows what moved when.'
	@echo '                 DEVICE=vfio-user: its card is the driver'"'"'s before and a program after)'
	@echo '  make test      every test; results and logs in results/    (ARGS="--help": choose some)'
	@echo '  make test-stock  what of it Debian'"'"'s own kernel can run, unmodified: no kernel is built for it'
	@echo '  make test-debug  what runs in the test machine, with a kernel that looks for faults of memory, locks and leaks'
	@echo '  make shell     a prompt in the test machine'
	@echo '  make bench     what operations cost, in instructions; migrations (ARGS=--count-only: none; PROFILE=save: where they go)'
	@echo '  make modules   the kernel modules only                     (KDIR=: against another kernel)'
	@echo '  make check     formatting, lints, documentation, licences'
	@echo '  make setup     only what the others do first: tools, test kernel and QEMUs, kept in a cache'
	@echo '  make clean     remove what was built from this checkout; clean-cache: what nobody uses any more; distclean: the whole cache'
	@echo
	@echo 'On Debian 12 or 13 (x86-64), as root or with sudo. Nothing of the system is removed or replaced: the tools'
	@echo 'live in a private directory tree under $${XDG_CACHE_HOME:-~/.cache}/rust-vfio-mdev.'
	@echo
	@echo '  QEMU=VERSION     which QEMU the demonstration shows: 7.2 (migration protocol v1), 10.0 (v2; the default) or 11.1 (v2)'
	@echo '  DEVICE=NAME      which device the demonstration shows: serial (the default), blk, a disk, or vfio-user'
	@echo '  KERNEL=stock     Debian'"'"'s own kernel instead of the test kernel, for demo and shell; KERNEL=debug: that of test-debug'
	@echo '  KDIR=DIR         a ready kernel build tree instead of the test kernel, or Debian'"'"'s headers for "make modules"'
	@echo '  KERNEL_SRC=PATH  source of the test kernel: a directory or a tarball, instead of the Debian package'
	@echo '  ARGS="..."       more arguments for demo, test, shell and bench'

setup:
	@$(scripts)/setup

demo shell:
	@$(scripts)/lab $@ $(ARGS)

bench:
	@$(scripts)/bench $(if $(PROFILE),--profile '$(PROFILE)') $(ARGS)

test:
	@$(scripts)/test $(ARGS)

test-stock:
	@$(scripts)/test-stock $(ARGS)

test-debug:
	@$(scripts)/test-debug $(ARGS)

check:
	@$(scripts)/check

modules:
	@$(if $(KDIR),,$(scripts)/setup kernel &&) $(scripts)/modules

clean:
	@$(scripts)/clean

clean-cache:
	@$(scripts)/clean --old

distclean:
	@$(scripts)/clean --cache
