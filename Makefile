# SPDX-License-Identifier: GPL-2.0
#
# The commands of this repository. They only call the scripts, which do the work and which all
# explain themselves with --help. (Kbuild, not this file, says how the driver is built.)

S := $(dir $(abspath $(firstword $(MAKEFILE_LIST))))scripts

.PHONY: help
help: ## what you are reading
	@echo "Usage: make COMMAND"
	@echo
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Everything built lies in one folder, \$$VBW_CACHE or ~/.cache/virtio-blk-wce."
	@echo "BUILDROOT=none uses the tools of this host instead of a build root."

.PHONY: demo
demo: ## from nothing to the main job: what stock parts lose is kept, and a guest switches its disk's write cache
	@$S/demo.sh

.PHONY: demo_svg
demo_svg: ## the same, recorded: makes what README.md and Documentation/ show of it
	@$S/demo-svg.sh

.PHONY: shell
shell: ## a prompt in a guest that has the driver loaded and a disk
	@$S/shell.sh

.PHONY: check
check: ## lint, builds and all tests
	@$S/check.sh

.PHONY: check-guest
check-guest: ## the tests that boot guests, and what they are tested with; KERNEL=…: on another kernel
	@$S/run.sh $(if $(KERNEL),--kernel $(KERNEL)) --root-disk python3 -m pytest -c tests/pytest.ini -m 'not long' tests

.PHONY: check-long
check-long: ## what takes too long for make check: the life of the Debian package
	@$S/run.sh --root-disk python3 -m pytest -c tests/pytest.ini -m long tests

.PHONY: check-kernels
check-kernels: ## those by which kernels differ, on Debian's amd64, rt-amd64 and 7.2 kernels
	@$S/check-kernels.sh

.PHONY: check-qemu
check-qemu: ## QEMU's own tests; COMPARE=1: also without the patches; EACH=1: after each patch; SANITIZE=1: ASan, UBSan
	@$S/check-qemu.sh $(if $(EACH),--each) $(if $(COMPARE),--compare) $(if $(SANITIZE),--sanitize)

.PHONY: fuzz
fuzz: ## QEMU's fuzz targets of virtio-blk, RUNS=… inputs each
	@$S/fuzz-qemu.sh $(RUNS)

.PHONY: fuzz_driver
fuzz_driver: ## the driver, by a device that misbehaves, INPUTS=… times
	@$S/fuzz-driver.sh $(if $(INPUTS),--inputs $(INPUTS))

.PHONY: prove
prove: ## durability: an independent judge of every acknowledged write; PROVE=quick|long, PROVE_SEED=…, TRIAL=…
	@$S/prove.sh $(if $(PROVE),--profile $(PROVE)) $(if $(PROVE_SEED),--seed $(PROVE_SEED)) $(TRIAL)

.PHONY: check-debug
check-debug: ## the tests that boot guests, on a kernel with KASAN and lockdep
	@$S/check-debug.sh

.PHONY: intree
intree: ## the driver in the kernel's own tree: patches, built in and as a module, tests there; EACH=1: after each patch
	@$S/intree.sh $(if $(EACH),--each)

.PHONY: check-parallel
check-parallel: ## load, switches, resets, unplugging at once on processors in parallel; SECONDS=…; KCSAN=1: data races
	@$S/run.sh $(if $(KCSAN),--kcsan,--debug) env VBW_PARALLEL_SECONDS=$(or $(SECONDS),600) python3 -m pytest -c tests/pytest.ini -n 0 tests/debug/test_parallel.py

.PHONY: bench
bench: ## speed beside the kernel's own driver and a QEMU without the patches
	@$S/measure.sh speed instructions

.PHONY: measure
measure: ## the same, and size, memory, and what a thousand cycles leave behind
	@$S/measure.sh

.PHONY: mutants
mutants: ## the driver, broken on purpose: each time a test has to notice
	@$S/mutants.sh

.PHONY: lint
lint: ## formatting, clippy, both checkpatch, shell, Python, spelling
	@$S/lint.sh

.PHONY: module
module: ## the driver, for the pinned kernel or for any KDIR=…
	@$S/module.sh $(KDIR)

.PHONY: modules_install
modules_install: ## the same, and below INSTALL_MOD_PATH or / for its kernel to find
	@$S/modules-install.sh $(KDIR)

.PHONY: deb
deb: ## the driver as a Debian package that dkms builds
	@$S/deb.sh

.PHONY: kdir
kdir: ## a KDIR with Rust metadata for the pinned kernel or for Debian's KERNEL=…
	@$S/kdir.sh --keep $(KERNEL)

.PHONY: qemu
qemu: ## the patched QEMU
	@$S/qemu.sh

.PHONY: qemu_install
qemu_install: ## the same with its firmware, in PREFIX=… for use without the build root
	@$S/qemu-install.sh $(PREFIX)

.PHONY: doc
doc: ## rustdoc of the driver and of the layer below it
	@$S/doc.sh

.PHONY: clean
clean: ## removes everything built; the next command makes it again
	@$S/clean.sh
