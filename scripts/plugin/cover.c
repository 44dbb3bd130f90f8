// SPDX-License-Identifier: GPL-2.0
/*
 * A TCG plugin for QEMU: which code of its modules a guest's kernel has executed for the first time.
 *
 * Code is translated when it is executed first, so that costs nothing afterwards. The address of
 * each block of translated code within "from" and "to" is added to the file that the argument "out"
 * names, and after a space the block's bytes, in hexadecimal, a line each. What is there already is
 * not added again; modules that have the same address one after the other differ by their code.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* As many blocks as the modules of a guest can have, and room for twice as many. */
#define MOST (1u << 19)
#define TABLE (2 * MOST)

static uint64_t table[TABLE];
static uint32_t used;
static uint64_t from, to = UINT64_MAX;
static FILE *out;

#define HASH UINT64_C(0x9e3779b97f4a7c15)
/* The longest instruction of x86-64. */
#define LONGEST 15

/* What tells a block from another one, never 0: its address, and all of its bytes. */
static uint64_t identity(const struct qemu_plugin_tb *tb)
{
	uint64_t hash = qemu_plugin_tb_vaddr(tb) * HASH;

	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		uint8_t bytes[LONGEST];
		size_t size = qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i), bytes, LONGEST);

		for (size_t j = 0; j < size; j++)
			hash = (hash ^ bytes[j]) * HASH;
	}
	return hash | 1;
}

static void print(const struct qemu_plugin_tb *tb)
{
	fprintf(out, "%" PRIx64 " ", qemu_plugin_tb_vaddr(tb));
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		uint8_t bytes[LONGEST];
		size_t size = qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i), bytes, LONGEST);

		for (size_t j = 0; j < size; j++)
			fprintf(out, "%02x", bytes[j]);
	}
	fputc('\n', out);
	fflush(out);
}

/* Called with a lock of QEMU's held: one block at a time is translated with a thread for all CPUs. */
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb), block;
	uint32_t i;

	(void)id;
	if (address < from || address >= to)
		return;
	block = identity(tb);
	for (i = block >> 44; table[i % TABLE]; i++)
		if (table[i % TABLE] == block)
			return;
	if (++used == MOST) {
		fprintf(stderr, "cover: the guest has too many blocks of code\n");
		abort();
	}
	table[i % TABLE] = block;
	print(tb);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4))
			out = fopen(argv[i] + 4, "w");
		else if (!strncmp(argv[i], "from=", 5))
			from = strtoull(argv[i] + 5, NULL, 16);
		else if (!strncmp(argv[i], "to=", 3))
			to = strtoull(argv[i] + 3, NULL, 16);
	}
	if (!out) {
		fprintf(stderr, "cover: the arguments are out=FILE, from=ADDRESS, to=ADDRESS\n");
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
