// SPDX-License-Identifier: GPL-2.0
/*
 * loadtool - some requests to a disk or a file, between two marks for scripts/plugin/count.c.
 *
 * It does as little as it can besides, and nothing by chance: no clock, no random offsets. Some
 * requests go first, so that what is allocated once and for all is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define BLOCK 4096
#define PARTS 32
#define MOST 64

static const char usage[] =
"Usage: loadtool LOAD PLACE REQUESTS FIRST\n"
"  LOAD is one of\n"
"    read, write          one at a time\n"
"    read32, write32      32 at a time, each submitted by itself when one has ended\n"
"    read16, write16      submitted by 16, when all before have ended\n"
"    poll                 reads, one at a time, polled\n"
"    fsync                a write and an fsync\n"
"    fdatasync            a write and an fdatasync\n"
"    append               a write at the end of a file, and an fsync\n"
"    dsync                writes with O_DSYNC\n"
"    long                 reads of 128 KiB, 32 pages that are not neighbours\n"
"    discard              discards of 4 KiB\n"
"    discard16            the same, submitted by 16, so that they become one request if they can\n"
"    switch               switches of the write cache: PLACE is the disk's cache_type\n"
"  PLACE is a disk, or a file of at least 16 MiB. Requests are of 4 KiB otherwise. FIRST of\n"
"  them go before those that are counted.\n";

static int fd;
static char *pages;
static struct iovec parts[PARTS];
static struct io_uring ring;
static aio_context_t context;
static unsigned long position;

static void die(const char *what)
{
	fprintf(stderr, "loadtool: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void check(long result, long wanted, const char *what)
{
	if (result == wanted)
		return;
	if (result >= 0)
		errno = EIO;
	die(what);
}

/* Blocks of the first 16 MiB, none of which is beside the one before. */
static off_t next_offset(void)
{
	return (position++ * 1237 % 4096) * BLOCK;
}

static void one(int write, unsigned long number)
{
	while (number--)
		if (write)
			check(pwrite(fd, pages, BLOCK, next_offset()), BLOCK, "pwrite");
		else
			check(pread(fd, pages, BLOCK, next_offset()), BLOCK, "pread");
}

static void flushed(unsigned long number)
{
	while (number--) {
		one(1, 1);
		check(fsync(fd), 0, "fsync");
	}
}

/* A file system has nothing to log then, but for times that change with the clock. */
static void flushed_data(unsigned long number)
{
	while (number--) {
		one(1, 1);
		check(fdatasync(fd), 0, "fdatasync");
	}
}

/* A file system has to log each of these. */
static void appended(unsigned long number)
{
	struct stat file;

	check(fstat(fd, &file), 0, "fstat");
	for (; number--; file.st_size += BLOCK) {
		check(pwrite(fd, pages, BLOCK, file.st_size), BLOCK, "pwrite");
		check(fsync(fd), 0, "fsync");
	}
}

static void long_ones(unsigned long number)
{
	while (number--)
		check(preadv(fd, parts, PARTS, position++ % 128 * PARTS * BLOCK),
		      PARTS * BLOCK, "preadv");
}

static void discards(unsigned long number)
{
	while (number--) {
		__u64 range[2] = { next_offset(), BLOCK };

		check(ioctl(fd, BLKDISCARD, range), 0, "BLKDISCARD");
	}
}

static void switches(unsigned long number)
{
	static const char *const modes[] = { "write through", "write back" };

	while (number--) {
		const char *mode = modes[position++ % 2];
		long length = strlen(mode);

		check(pwrite(fd, mode, length, 0), length, "cache_type");
	}
}

static void submit(int write, unsigned int tag)
{
	struct iocb iocb = {
		.aio_data = tag,
		.aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
		.aio_fildes = fd,
		.aio_buf = (unsigned long)pages + tag * BLOCK,
		.aio_nbytes = BLOCK,
		.aio_offset = next_offset(),
	};
	struct iocb *list = &iocb;

	check(syscall(SYS_io_submit, context, 1, &list), 1, "io_submit");
}

static void deep(int write, unsigned long number)
{
	unsigned long begun = 0, ended = 0;
	struct io_event event;

	while (begun < number && begun < 32)
		submit(write, begun++);
	while (ended < number) {
		check(syscall(SYS_io_getevents, context, 1, 1, &event, NULL), 1, "io_getevents");
		check(event.res, BLOCK, "asynchronous transfer");
		ended++;
		if (begun < number) {
			begun++;
			submit(write, event.data);
		}
	}
}

enum kind { READ, WRITE, DISCARD };

static void prepare(struct io_uring_sqe *sqe, enum kind kind, void *page)
{
	switch (kind) {
	case READ:
		io_uring_prep_read(sqe, fd, page, BLOCK, next_offset());
		break;
	case WRITE:
		io_uring_prep_write(sqe, fd, page, BLOCK, next_offset());
		break;
	case DISCARD:
		io_uring_prep_cmd_discard(sqe, fd, next_offset(), BLOCK);
		break;
	}
}

static void batches(enum kind kind, unsigned int size, unsigned long number)
{
	struct io_uring_cqe *cqe;
	unsigned int i;

	for (; number >= size; number -= size) {
		for (i = 0; i < size; i++)
			prepare(io_uring_get_sqe(&ring), kind, pages + i * BLOCK);
		check(io_uring_submit_and_wait(&ring, size), size, "io_uring_submit_and_wait");
		for (i = 0; i < size; i++) {
			check(io_uring_wait_cqe(&ring, &cqe), 0, "io_uring_wait_cqe");
			check(cqe->res, kind == DISCARD ? 0 : BLOCK, "request in a batch");
			io_uring_cqe_seen(&ring, cqe);
		}
	}
}

static void load(const char *what, unsigned long number)
{
	if (!strcmp(what, "read") || !strcmp(what, "write") || !strcmp(what, "dsync")) {
		one(*what != 'r', number);
	} else if (!strcmp(what, "read32") || !strcmp(what, "write32")) {
		deep(*what == 'w', number);
	} else if (!strcmp(what, "read16") || !strcmp(what, "write16")) {
		batches(*what == 'w' ? WRITE : READ, 16, number);
	} else if (!strcmp(what, "poll")) {
		batches(READ, 1, number);
	} else if (!strcmp(what, "fsync")) {
		flushed(number);
	} else if (!strcmp(what, "fdatasync")) {
		flushed_data(number);
	} else if (!strcmp(what, "append")) {
		appended(number);
	} else if (!strcmp(what, "long")) {
		long_ones(number);
	} else if (!strcmp(what, "discard")) {
		discards(number);
	} else if (!strcmp(what, "discard16")) {
		batches(DISCARD, 16, number);
	} else if (!strcmp(what, "switch")) {
		switches(number);
	} else {
		fputs(usage, stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	const char *what = argc == 5 ? argv[1] : "";
	int flags = O_RDWR;
	unsigned int i;

	if (argc != 5) {
		fputs(usage, stderr);
		return 2;
	}
	if (strcmp(what, "switch"))
		flags |= O_DIRECT;
	if (!strcmp(what, "dsync"))
		flags |= O_DSYNC;
	fd = open(argv[2], flags);
	if (fd < 0)
		die(argv[2]);
	pages = mmap(NULL, MOST * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     0);
	if (pages == MAP_FAILED)
		die("mmap");
	/* A kernel that has no huge pages does not know what that is. */
	if (madvise(pages, MOST * BLOCK, MADV_NOHUGEPAGE) && errno != EINVAL)
		die("madvise");
	memset(pages, 1, MOST * BLOCK);
	for (i = 0; i < PARTS; i++)
		parts[i] = (struct iovec){ pages + 2 * i * BLOCK, BLOCK };
	if (syscall(SYS_io_setup, MOST, &context))
		die("io_setup");
	i = io_uring_queue_init(MOST, &ring, strcmp(what, "poll") ? 0 : IORING_SETUP_IOPOLL);
	if (i) {
		errno = -(int)i;
		die("io_uring_queue_init");
	}

	load(what, strtoul(argv[4], NULL, 0));
	__asm__ volatile("nopl 0x56425701(%%rax)" ::: "memory");
	load(what, strtoul(argv[3], NULL, 0));
	__asm__ volatile("nopl 0x56425702(%%rax)" ::: "memory");
	return 0;
}
