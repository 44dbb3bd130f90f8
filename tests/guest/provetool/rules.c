// SPDX-License-Identifier: GPL-2.0
/* When a write is acknowledged, and the writers that have one in flight. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/uio.h>
#include <unistd.h>

#include "provetool.h"

#define ACK_MAGIC	0x4b434155u
#define MAX_PENDING	64

struct acknowledgement {
	uint32_t magic, run;
	uint64_t block, sequence;
	uint32_t blocks, rule;
};

uint32_t run_number;
int ack_fd = -1;
atomic_int stop;

/*
 * What the mode is known to be. The toggling thread is the only one that changes it, or it is
 * steady. An odd number: write through, for as long as the number stays. "risk" is odd while
 * flushes are turned off by hand.
 */
atomic_uint steady_through, risk;
/* Switches to write through that have begun and that have succeeded. */
atomic_ulong through_begun, through_done;

/*
 * Not blocking: the kernel would spin until the host has read it. A serial line takes it in parts.
 */
void acknowledge(struct writer *writer, const struct slot *slot)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct acknowledgement ack = { ACK_MAGIC, run_number, slot->block, slot->sequence,
				       writer->size / BLOCK, writer->how };
	struct pollfd port = { .fd = ack_fd, .events = POLLOUT };
	size_t sent = 0;

	pthread_mutex_lock(&lock);
	while (sent < sizeof(ack)) {
		ssize_t done = write(ack_fd, (char *)&ack + sent, sizeof(ack) - sent);

		if (done > 0)
			sent += done;
		else if (errno == EAGAIN)
			poll(&port, 1, 1000);
		else
			die("the host's port");
	}
	pthread_mutex_unlock(&lock);
	writer->acked++;
}

/* Before a write: which block it goes to, with what in it, and what is known of the mode. */
off_t prepare(struct writer *writer, struct slot *slot)
{
	slot->block = slot->first + slot->turn++ % slot->groups * (writer->size / BLOCK);
	slot->sequence = (uint64_t)run_number << 40 | ++writer->sequence;
	fill(slot, writer->size);
	slot->steady = atomic_load(&steady_through);
	slot->risk = atomic_load(&risk);
	slot->syncing = 0;
	return (slot->block - writer->first + writer->at) * BLOCK;
}

/* After it, and after the flush that its rule may ask for. */
void finish(struct writer *writer, struct slot *slot, long result, long expected)
{
	if (result != expected) {
		writer->failed++;
		writer->error = result < 0 ? -result : EIO;
		return;
	}
	if (slot->risk & 1 || slot->risk != atomic_load(&risk))
		return;
	if (writer->how == PLAIN || writer->how == ZERO)
		if (!(slot->steady & 1) || slot->steady != atomic_load(&steady_through))
			return;
	acknowledge(writer, slot);
}

long result_of(long ret)
{
	return ret < 0 ? -errno : ret;
}

/* The rules that need nothing in flight but one write. */
static void write_one(struct writer *writer, struct slot *slot)
{
	struct iovec iov = { slot->data, writer->size };
	off_t offset = prepare(writer, slot);
	long ret;

	if (writer->how == RWF)
		ret = result_of(pwritev2(writer->fd, &iov, 1, offset, RWF_DSYNC));
	else
		ret = result_of(pwrite(writer->fd, slot->data, writer->size, offset));
	if (ret == writer->size && (writer->how == FSYNC || writer->how == FDATASYNC)) {
		int error = writer->how == FSYNC ? fsync(writer->fd) : fdatasync(writer->fd);

		if (error)
			ret = -errno;
	}
	finish(writer, slot, ret, writer->size);
}

/* Had the zeroes no effect, the record would be found. */
static void zero_one(struct writer *writer, struct slot *slot)
{
	struct iovec iov = { slot->data, writer->size };
	off_t offset = prepare(writer, slot);
	int mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	long ret = result_of(pwritev2(writer->fd, &iov, 1, offset, RWF_DSYNC));

	slot->steady = atomic_load(&steady_through);
	if (ret == writer->size && (fallocate(writer->fd, mode, offset, writer->size) ||
				    (writer->how == ZERO_FSYNC && fsync(writer->fd))))
		ret = -errno;
	finish(writer, slot, ret, writer->size);
}

void write_synchronously(struct writer *writer)
{
	while (!atomic_load(&stop)) {
		if (writer->how == ZERO || writer->how == ZERO_FSYNC)
			zero_one(writer, &writer->slots[0]);
		else
			write_one(writer, &writer->slots[0]);
	}
}

/* Plain writes, which a switch to write through makes durable if it began after they ended. */
void write_and_await_switch(struct writer *writer)
{
	struct {
		struct slot slot;
		unsigned long begun;
	} pending[MAX_PENDING];
	struct slot *slot = &writer->slots[0];
	unsigned int from = 0, to = 0;

	while (!atomic_load(&stop)) {
		if (to - from < MAX_PENDING) {
			off_t offset = prepare(writer, slot);
			long ret = result_of(pwrite(writer->fd, slot->data, writer->size, offset));

			if (ret == writer->size) {
				pending[to % MAX_PENDING].slot = *slot;
				pending[to++ % MAX_PENDING].begun = atomic_load(&through_begun);
			} else {
				finish(writer, slot, ret, writer->size);
			}
		} else {
			sched_yield();
		}
		while (from != to && atomic_load(&through_done) > pending[from % MAX_PENDING].begun)
			acknowledge(writer, &pending[from++ % MAX_PENDING].slot);
	}
}
