# Every target is a script: read it there. `make` alone lists them.
.POSIX:
.PHONY: help demo check test test-portable test-kernel test-guests test-hosts guest fuzz bench
.PHONY: dist deb tarball deps

help: # what can be made
	@awk -F ':.*# ' '/^[a-z-]*:.*# / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: # a real guest on a bridged network, from nothing to nothing, in namespaces; root
	@scripts/demo.sh

check: # what needs neither root nor network: format, lints, documentation, quick tests
	@scripts/test.sh check

test: deps # everything that must hold: all tests, and two hosts of the table; root
	@HOSTS=--always scripts/test.sh check portable kernel guests hosts

test-portable: # it compiles with the oldest compiler, and for other machines
	@scripts/test.sh portable

test-kernel: # tests on the real kernel, in network namespaces; root
	@scripts/test.sh kernel

test-guests: # tests with real guests in QEMU, and the demo; root
	@scripts/test.sh guests

test-hosts: # volnet installed on Debian 11 to 13 in QEMU, HOSTS="NAME ..." for some; root
	@scripts/test.sh hosts

guest: deps # the kernel and initramfs that the guest tests boot: build/guest/
	@tests/guest/build.sh

fuzz: # each fuzz target for FUZZ_SECONDS (30)
	@scripts/fuzz.sh

bench: # what volnet costs beside the kernel's floor and its peers; BENCH_QUICK=1: two minutes
	@scripts/bench.sh

dist: # dist/volnet: the static, stripped binary; ARCH=arm64: dist/volnet-arm64
	@scripts/dist.sh

deb: # dist/volnet_VERSION_ARCH.deb for Debian; ARCH=arm64
	@scripts/deb.sh

tarball: # dist/volnet-VERSION-ARCH.tar.gz for other hosts, and SHA256SUMS; ARCH=arm64
	@scripts/tarball.sh

deps: # the Debian packages that the other targets use, where a command is missing
	@scripts/deps.sh
