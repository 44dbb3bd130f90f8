/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of provetool share. */
#ifndef PROVETOOL_H
#define PROVETOOL_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#define BLOCK		4096
#define SECTOR		512
#define MAX_DEPTH	64
#define MAX_WRITERS	64

enum how { FSYNC, FDATASYNC, DSYNC, RWF, AIO, AIO_RWF, AIO_FSYNC, URING, URING_RWF, URING_FSYNC,
	   URING_POLL, PLAIN, SWITCH, ZERO, ZERO_FSYNC, HOWS, ROW = HOWS };

/* A write that may be in flight. */
struct slot {
	unsigned char *data;
	uint64_t first, groups, turn, block, sequence;
	unsigned int steady, risk;
	int syncing;
};

struct writer {
	enum how how;
	const char *path;
	uint64_t first, blocks, at;
	unsigned int size, depth, buffered;
	int fd;
	struct slot slots[MAX_DEPTH];
	uint64_t sequence;
	unsigned long acked, failed;
	int error;
};

/* How the mode is switched meanwhile. */
struct toggle {
	unsigned int pause_us;
	const char *cache_type, *by_hand;
	atomic_ulong switches;
	unsigned long refused;
	atomic_int gone;
};

extern uint32_t run_number;
extern int ack_fd;
extern atomic_int stop;
extern atomic_uint steady_through, risk;
extern atomic_ulong through_begun, through_done;

void die(const char *what) __attribute__((noreturn));
long result_of(long ret);

/* record.c */
void fill(struct slot *slot, unsigned int size);
int find(const char *path);

/* rules.c */
void acknowledge(struct writer *writer, const struct slot *slot);
off_t prepare(struct writer *writer, struct slot *slot);
void finish(struct writer *writer, struct slot *slot, long result, long expected);

/* Write until it is time to stop. */
void write_synchronously(struct writer *writer);
void write_and_await_switch(struct writer *writer);
void write_by_aio(struct writer *writer);
void write_by_uring(struct writer *writer);

/* toggle.c */
void *toggle(void *arg);

#endif
