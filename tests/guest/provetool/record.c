// SPDX-License-Identifier: GPL-2.0
/* The records: how they are made, and found again. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "provetool.h"

#define RECORD_MAGIC	0x57425655u

struct record {
	uint32_t magic, run;
	uint64_t block, sequence, check;
};

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static uint64_t check_of(const struct record *record)
{
	return mix(mix(record->block + 1) ^ record->sequence ^ (uint64_t)record->run << 32);
}

void fill(struct slot *slot, unsigned int size)
{
	struct record record = {
		.magic = RECORD_MAGIC,
		.run = run_number,
		.sequence = slot->sequence,
	};
	unsigned int at;

	for (at = 0; at < size; at += SECTOR) {
		if (!(at % BLOCK)) {
			record.block = slot->block + at / BLOCK;
			record.check = check_of(&record);
		}
		memcpy(slot->data + at, &record, sizeof(record));
	}
}

int find(const char *path)
{
	static char data[BLOCK];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0)
		die(path);
	while ((length = read(fd, data, BLOCK)) == BLOCK) {
		struct record first, other;
		int at, torn = 0;

		memcpy(&first, data, sizeof(first));
		for (at = 0; at < BLOCK; at += SECTOR) {
			memcpy(&other, data + at, sizeof(other));
			torn |= other.check != check_of(&other);
			torn |= memcmp(&first, &other, sizeof(first)) != 0;
		}
		if (first.magic != RECORD_MAGIC)
			continue;
		if (torn)
			printf("torn %llu\n", (unsigned long long)first.block);
		else
			printf("%llu %llu\n", (unsigned long long)first.block,
			       (unsigned long long)first.sequence);
	}
	if (length < 0)
		die(path);
	return 0;
}
