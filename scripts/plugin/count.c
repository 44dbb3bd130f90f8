// SPDX-License-Identifier: GPL-2.0
/*
 * A TCG plugin for QEMU: how often a guest executes each instruction of its kernel between two
 * marks.
 *
 * A mark is a long no-operation with a displacement that nobody else uses, which the guest's program
 * tests/guest/loadtool.c has before and after what is to be counted. After each end mark a section
 * is added to the file that the argument "out" names:
 *
 *     user COUNT
 *     ADDRESS COUNT TARGET
 *     …
 *     end
 *
 * in hexadecimal, where TARGET is where a direct call or jump of five bytes goes to, and otherwise 0.
 * Instructions of user space are one number. Whoever reads the file knows the guest's symbols.
 *
 * Instructions are counted in line, without locks: run it with one thread for all CPUs.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* More instructions than a kernel executes from its start on; the table has room for twice as many. */
#define SLOTS (1u << 20)
#define TABLE (2 * SLOTS)
#define USER 0

/* Addresses of the kernel, on x86-64 and otherwise. */
#define KERNEL (UINT64_C(1) << 63)

/* nopl DISPLACEMENT(%rax), and the displacements: as in loadtool.c. */
#define MARK_BYTES 7
static const uint8_t mark_begin[MARK_BYTES] = { 0x0f, 0x1f, 0x80, 0x01, 0x57, 0x42, 0x56 };
static const uint8_t mark_end[MARK_BYTES] = { 0x0f, 0x1f, 0x80, 0x02, 0x57, 0x42, 0x56 };

struct place {
	uint64_t address;
	uint64_t target;
};

static struct place places[SLOTS];
static uint32_t table[TABLE];
static uint32_t used = USER + 1;
static struct qemu_plugin_scoreboard *counts;
static FILE *out;

static qemu_plugin_u64 count_of(uint32_t slot)
{
	return (qemu_plugin_u64){ counts, slot * sizeof(uint64_t) };
}

static uint32_t slot_of(uint64_t address)
{
	uint32_t i = (address * UINT64_C(0x9e3779b97f4a7c15)) >> 43;

	for (;; i++) {
		uint32_t *entry = &table[i % TABLE];

		if (!*entry) {
			if (used == SLOTS) {
				fprintf(stderr, "count: the guest has too many instructions\n");
				abort();
			}
			places[used].address = address;
			*entry = used++;
		}
		if (places[*entry].address == address)
			return *entry;
	}
}

static void begin(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	for (uint32_t slot = 0; slot < used; slot++)
		for (int i = 0; i < qemu_plugin_num_vcpus(); i++)
			qemu_plugin_u64_set(count_of(slot), i, 0);
}

static void end(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	fprintf(out, "user %" PRIx64 "\n", qemu_plugin_u64_sum(count_of(USER)));
	for (uint32_t slot = USER + 1; slot < used; slot++) {
		uint64_t count = qemu_plugin_u64_sum(count_of(slot));

		if (count)
			fprintf(out, "%" PRIx64 " %" PRIx64 " %" PRIx64 "\n", places[slot].address, count,
				places[slot].target);
	}
	fprintf(out, "end\n");
	fflush(out);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t address = qemu_plugin_insn_vaddr(insn);
		uint32_t slot = address & KERNEL ? slot_of(address) : USER;
		uint8_t code[MARK_BYTES] = { 0 };
		size_t size = qemu_plugin_insn_data(insn, code, sizeof(code));

		if (slot != USER) {
			int32_t distance;

			memcpy(&distance, code + 1, sizeof(distance));
			places[slot].target = 0;
			if (size == 5 && (code[0] == 0xe8 || code[0] == 0xe9))
				places[slot].target = address + size + distance;
		} else if (size == MARK_BYTES && !memcmp(code, mark_begin, size)) {
			qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, QEMU_PLUGIN_CB_NO_REGS, NULL);
		} else if (size == MARK_BYTES && !memcmp(code, mark_end, size)) {
			qemu_plugin_register_vcpu_insn_exec_cb(insn, end, QEMU_PLUGIN_CB_NO_REGS, NULL);
		}
		qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64,
								    count_of(slot), 1);
	}
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4)) {
		fprintf(stderr, "count: the one argument is out=FILE\n");
		return -1;
	}
	out = fopen(argv[0] + 4, "w");
	if (!out) {
		perror(argv[0] + 4);
		return -1;
	}
	counts = qemu_plugin_scoreboard_new(SLOTS * sizeof(uint64_t));
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
