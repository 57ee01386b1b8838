# Every target is a script: read it there. `make` alone lists them.
.POSIX:
.PHONY: help demo test guest fuzz bench dist deps

help: # what can be made
	@sed -n 's/^\([a-z]*\):.*# /  make \1	/p' Makefile

demo: # a real guest on a bridged network, from nothing to nothing, in namespaces of its own
	@scripts/demo.sh

test: # everything that must hold: format, lints, tests on the real kernel and with real guests
	@scripts/test.sh

guest: deps # the kernel and initramfs that the guest tests boot: build/guest/
	@tests/guest/build.sh

fuzz: # each fuzz target for FUZZ_SECONDS (30)
	@scripts/fuzz.sh

bench: # what volnet costs beside the kernel's floor and its peers; BENCH_QUICK=1: two minutes
	@scripts/bench.sh

dist: # dist/volnet: the static, stripped binary
	@scripts/dist.sh

deps: # the Debian packages that the other targets use, where a command is missing
	@scripts/deps.sh
