// SPDX-License-Identifier: GPL-2.0
/*
 * vbwfuzz - the guest's part of fuzzing the driver with a device that misbehaves.
 *
 * Usage: vbwfuzz PORT DEVICE
 *
 * DEVICE is the name of a virtio device, PORT the host's. For each byte that comes from the host the
 * device is bound to the driver, its disk is used if there is one, and the device is unbound. The
 * byte says what the use is like. The answer is one byte: "r" if the driver has refused the device,
 * "d" if there was a disk, "s" if whoever used that had to be ended, "!" if the device could not be
 * unbound.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DRIVER		"/sys/bus/virtio/drivers/virtio_blk_wce/"
#define DISK		"/dev/vda"
#define ATTRIBUTES	"/sys/block/vda/"
#define DEPTH		16
#define LARGEST		(64 << 10)
#define SPAN		(32 << 20)

/* How long the disk is used, in milliseconds, and how long after that its user may need to end. */
#define USE_MS		60
#define END_MS		1000

static void die(const char *what)
{
	fprintf(stderr, "vbwfuzz: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), done;

	if (fd < 0)
		return -1;
	done = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
	close(fd);
	return done;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static void get(const char *path)
{
	char text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, text, sizeof(text)) >= 0)
		close(fd);
}

/* Whatever the outcome of a request is, the next one is made. */
static void submit(struct io_uring *ring, int fd, char *data, unsigned int *seed)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	unsigned int size = 512u << rand_r(seed) % 8;
	off_t offset = (off_t)(rand_r(seed) % (SPAN / 512)) * 512;

	if (!sqe)
		return;
	switch (rand_r(seed) % 8) {
	case 0:
	case 1:
		io_uring_prep_read(sqe, fd, data, size, offset);
		break;
	case 2:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		break;
	case 3:
		io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset & ~4095, 4096);
		break;
	case 4:
		io_uring_prep_fallocate(sqe, fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset & ~4095, 4096);
		break;
	case 5:
		io_uring_prep_write(sqe, fd, data, size, offset);
		sqe->rw_flags = RWF_DSYNC;
		break;
	default:
		io_uring_prep_write(sqe, fd, data, size, offset);
	}
}

static void use_disk(unsigned int seed)
{
	struct __kernel_timespec patience = { .tv_nsec = 20000000 };
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	int fd = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	char *data;

	if (fd < 0 || io_uring_queue_init(DEPTH, &ring, 0) || posix_memalign((void **)&data, 4096, LARGEST))
		return;
	memset(data, seed, LARGEST);
	if (seed & 1)
		put(ATTRIBUTES "cache_type", "write through");
	for (int round = 0; round < 2; round++) {
		int flying = 1 + seed % DEPTH;

		for (int i = 0; i < flying; i++)
			submit(&ring, fd, data, &seed);
		io_uring_submit(&ring);
		if (round)
			put(ATTRIBUTES "cache_type", seed & 2 ? "write back" : "write through");
		while (flying-- && !io_uring_wait_cqe_timeout(&ring, &cqe, &patience))
			io_uring_cqe_seen(&ring, cqe);
	}
	get(ATTRIBUTES "serial");
	get(ATTRIBUTES "cache_type_status");
}

static char cycle(const char *device, unsigned char seed)
{
	char answer = 'd';
	pid_t child;
	int ms;

	if (put(DRIVER "bind", device))
		return 'r';
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		use_disk(seed);
		_exit(0);
	}
	for (ms = 0; ms < USE_MS && !waitpid(child, NULL, WNOHANG); ms++)
		nap();
	if (put(DRIVER "unbind", device))
		answer = '!';
	if (ms == USE_MS) {
		/* What it waits for has no disk any more. */
		for (ms = 0; ms < END_MS && !waitpid(child, NULL, WNOHANG); ms++)
			nap();
		if (ms == END_MS) {
			kill(child, SIGKILL);
			waitpid(child, NULL, 0);
			answer = 's';
		}
	}
	return answer;
}

int main(int argc, char **argv)
{
	unsigned char seed;
	char answer;
	int port;

	if (argc != 3) {
		fputs("Usage: vbwfuzz PORT DEVICE\n", stderr);
		return 2;
	}
	port = open(argv[1], O_RDWR | O_CLOEXEC);
	if (port < 0)
		die(argv[1]);
	while (read(port, &seed, 1) == 1) {
		answer = cycle(argv[2], seed);
		if (write(port, &answer, 1) != 1)
			die(argv[1]);
	}
	return 0;
}
