// SPDX-License-Identifier: GPL-2.0
/* The writers that have several writes in flight, by the two interfaces that the kernel has. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "provetool.h"

static void aio_submit(aio_context_t context, struct writer *writer, struct slot *slot, int fsync)
{
	struct iocb iocb = { .aio_fildes = writer->fd, .aio_data = slot - writer->slots };
	struct iocb *list[] = { &iocb };

	if (fsync) {
		iocb.aio_lio_opcode = IOCB_CMD_FDSYNC;
		slot->syncing = 1;
	} else {
		iocb.aio_lio_opcode = IOCB_CMD_PWRITE;
		iocb.aio_offset = prepare(writer, slot);
		iocb.aio_buf = (uintptr_t)slot->data;
		iocb.aio_nbytes = writer->size;
		iocb.aio_rw_flags = writer->how == AIO_RWF ? RWF_DSYNC : 0;
	}
	if (syscall(SYS_io_submit, context, 1, list) != 1)
		die("io_submit");
}

void write_by_aio(struct writer *writer)
{
	struct io_event events[MAX_DEPTH];
	aio_context_t context = 0;
	unsigned int flying = 0, i;

	if (syscall(SYS_io_setup, MAX_DEPTH, &context))
		die("io_setup");
	for (i = 0; i < writer->depth; i++, flying++)
		aio_submit(context, writer, &writer->slots[i], 0);
	while (flying) {
		long n = syscall(SYS_io_getevents, context, 1, MAX_DEPTH, events, NULL);

		/* A system that is suspended interrupts it. */
		if (n < 1 && errno != EINTR)
			die("io_getevents");
		for (i = 0; i < n; i++) {
			struct slot *slot = &writer->slots[events[i].data];
			long ret = events[i].res;

			if (writer->how == AIO_FSYNC && !slot->syncing && ret == writer->size) {
				aio_submit(context, writer, slot, 1);
				continue;
			}
			finish(writer, slot, ret, slot->syncing ? 0 : writer->size);
			if (atomic_load(&stop))
				flying--;
			else
				aio_submit(context, writer, slot, 0);
		}
	}
}

struct ring {
	int fd;
	struct io_uring_params params;
	struct io_uring_sqe *sqes;
	char *sq, *cq;
};

static void uring_open(struct ring *ring, int poll)
{
	struct io_uring_params *params = &ring->params;
	int prot = PROT_READ | PROT_WRITE;
	size_t sq_size, cq_size, sqes_size;

	if (poll)
		params->flags = IORING_SETUP_IOPOLL;

	ring->fd = syscall(SYS_io_uring_setup, MAX_DEPTH, params);
	if (ring->fd < 0)
		die("io_uring_setup");
	sq_size = params->sq_off.array + params->sq_entries * sizeof(unsigned int);
	cq_size = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
	sqes_size = params->sq_entries * sizeof(*ring->sqes);
	ring->sq = mmap(NULL, sq_size, prot, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
	ring->cq = mmap(NULL, cq_size, prot, MAP_SHARED, ring->fd, IORING_OFF_CQ_RING);
	ring->sqes = mmap(NULL, sqes_size, prot, MAP_SHARED, ring->fd, IORING_OFF_SQES);
	if (ring->sq == MAP_FAILED || ring->cq == MAP_FAILED || (void *)ring->sqes == MAP_FAILED)
		die("the ring");
}

static void uring_submit(struct ring *ring, struct writer *writer, struct slot *slot, int fsync)
{
	atomic_uint *tail = (void *)(ring->sq + ring->params.sq_off.tail);
	unsigned int mask = *(unsigned int *)(ring->sq + ring->params.sq_off.ring_mask);
	unsigned int at = atomic_load(tail), index = at & mask;
	struct io_uring_sqe *sqe = &ring->sqes[index];

	memset(sqe, 0, sizeof(*sqe));
	sqe->fd = writer->fd;
	sqe->user_data = slot - writer->slots;
	if (fsync) {
		sqe->opcode = IORING_OP_FSYNC;
		sqe->fsync_flags = IORING_FSYNC_DATASYNC;
		slot->syncing = 1;
	} else {
		sqe->opcode = IORING_OP_WRITE;
		sqe->off = prepare(writer, slot);
		sqe->addr = (uintptr_t)slot->data;
		sqe->len = writer->size;
		sqe->rw_flags = writer->how == URING_RWF ? RWF_DSYNC : 0;
	}
	((unsigned int *)(ring->sq + ring->params.sq_off.array))[index] = index;
	atomic_store(tail, at + 1);
	if (syscall(SYS_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0) != 1)
		die("io_uring_enter");
}

void write_by_uring(struct writer *writer)
{
	struct ring ring = { 0 };
	unsigned int flying = 0, i, mask;
	atomic_uint *head, *tail;

	uring_open(&ring, writer->how == URING_POLL);
	head = (void *)(ring.cq + ring.params.cq_off.head);
	tail = (void *)(ring.cq + ring.params.cq_off.tail);
	mask = *(unsigned int *)(ring.cq + ring.params.cq_off.ring_mask);
	for (i = 0; i < writer->depth; i++, flying++)
		uring_submit(&ring, writer, &writer->slots[i], 0);
	while (flying) {
		long n = syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);

		if (n < 0 && errno != EINTR)
			die("io_uring_enter");
		while (atomic_load(head) != atomic_load(tail)) {
			struct io_uring_cqe *cqe = (void *)(ring.cq + ring.params.cq_off.cqes);
			struct slot *slot;
			long ret;

			cqe += atomic_load(head) & mask;
			slot = &writer->slots[cqe->user_data];
			ret = cqe->res;
			atomic_fetch_add(head, 1);
			if (writer->how == URING_FSYNC && !slot->syncing && ret == writer->size) {
				uring_submit(&ring, writer, slot, 1);
				continue;
			}
			finish(writer, slot, ret, slot->syncing ? 0 : writer->size);
			if (atomic_load(&stop))
				flying--;
			else
				uring_submit(&ring, writer, slot, 0);
		}
	}
}
