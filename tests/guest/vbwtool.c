// SPDX-License-Identifier: GPL-2.0
/*
 * vbwtool - the few system calls that a test in a guest needs and that a shell
 * cannot make: single, unbuffered, with the error's name as the answer.
 *
 * Prints one word on standard output: OK, or the name of the error. Exit code 0
 * when the call was made, whatever its outcome; 2 when it could not be made.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
"Usage: vbwtool set FILE TEXT [SECONDS]\n"
"         one write of TEXT, as it is, to the attribute FILE; with SECONDS, a\n"
"         signal interrupts it after that time\n"
"       vbwtool switch FILE TIMES [MICROSECONDS]\n"
"         to write through and back, TIMES each, by writes to the attribute FILE,\n"
"         with MICROSECONDS from one to the next; prints how many each took\n"
"       vbwtool wait FILE TEXT SECONDS\n"
"         until FILE's line is TEXT, woken by poll alone; ETIMEDOUT if that\n"
"         never happens\n"
"       vbwtool write DISK OFFSET BYTES SEED\n"
"         one direct write of a pattern made from SEED\n"
"       vbwtool dsync DISK OFFSET BYTES SEED\n"
"         the same, asynchronous and with O_DSYNC: a write with FUA and nothing\n"
"         after it, as a file system commits a transaction\n"
"       vbwtool verify DISK OFFSET BYTES SEED\n"
"         one direct read; EILSEQ when it is not that pattern\n"
"       vbwtool fsync DISK\n"
"       vbwtool zero DISK OFFSET BYTES\n"
"         a range written with zeroes, by a request for that if the disk has one\n"
"       vbwtool punch DISK OFFSET BYTES\n"
"         the same, but the range need not stay allocated\n";

static void die(const char *what)
{
	fprintf(stderr, "vbwtool: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int answer(int error)
{
	puts(error ? strerrorname_np(error) : "OK");
	return 0;
}

static unsigned long number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (!*text || *end) {
		fprintf(stderr, "vbwtool: '%s' is not numeric\n", text);
		exit(2);
	}
	return value;
}

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		die(path);
	return fd;
}

static void nothing(int signal)
{
	(void)signal;
}

static int set(const char *path, const char *text, unsigned int seconds)
{
	/* No SA_RESTART: the write has to come back and say EINTR. */
	struct sigaction action = { .sa_handler = nothing };
	size_t length = strlen(text);
	int fd = open_or_die(path, O_WRONLY);
	ssize_t done;

	sigaction(SIGALRM, &action, NULL);
	alarm(seconds);
	done = write(fd, text, length);
	if (done >= 0 && (size_t)done != length) {
		fprintf(stderr, "vbwtool: %zd of %zu bytes taken\n", done, length);
		return 2;
	}
	return answer(done < 0 ? errno : 0);
}

static long long now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static long long now_ms(void)
{
	return now_us() / 1000;
}

static int do_switch(const char *path, unsigned long times, unsigned long pace)
{
	static const char *const modes[] = { "write through", "write back" };
	int fd = open_or_die(path, O_WRONLY);
	long long next = now_us();

	for (unsigned long i = 0; i < 2 * times; i++) {
		const char *mode = modes[i % 2];
		long long began = now_us();

		if (began < next) {
			usleep(next - began);
			began = now_us();
		}
		next += pace;
		if (pwrite(fd, mode, strlen(mode), 0) < 0)
			return answer(errno);
		printf("%lld\n", now_us() - began);
	}
	return 0;
}

static int wait_for(const char *path, const char *text, unsigned int seconds)
{
	long long end = now_ms() + seconds * 1000LL;
	int fd = open_or_die(path, O_RDONLY);

	for (;;) {
		struct pollfd pfd = { .fd = fd, .events = POLLPRI };
		char line[256];
		ssize_t length = pread(fd, line, sizeof(line) - 1, 0);
		long long left;

		if (length < 0)
			return answer(errno);
		line[length] = '\0';
		line[strcspn(line, "\n")] = '\0';
		if (!strcmp(line, text))
			return answer(0);
		left = end - now_ms();
		if (left < 0)
			left = 0;
		switch (poll(&pfd, 1, left)) {
		case -1:
			return answer(errno);
		case 0:
			/* Even if the text is right by now: nobody said so. */
			return answer(ETIMEDOUT);
		}
	}
}

static unsigned char *pattern(size_t length, unsigned long seed)
{
	uint64_t state = seed * 2 + 1;
	unsigned char *data;
	size_t i;

	if (posix_memalign((void **)&data, 4096, length))
		die("memory");
	for (i = 0; i < length; i++) {
		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		data[i] = state >> 56;
	}
	return data;
}

static int do_write(const char *path, off_t offset, size_t length, unsigned long seed)
{
	int fd = open_or_die(path, O_WRONLY | O_DIRECT);
	ssize_t done = pwrite(fd, pattern(length, seed), length, offset);

	if (done >= 0 && (size_t)done != length)
		return answer(ENOSPC);
	return answer(done < 0 ? errno : 0);
}

static int do_dsync(const char *path, off_t offset, size_t length, unsigned long seed)
{
	int fd = open_or_die(path, O_WRONLY | O_DIRECT | O_DSYNC);
	struct iocb iocb = {
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_fildes = fd,
		.aio_buf = (uintptr_t)pattern(length, seed),
		.aio_nbytes = length,
		.aio_offset = offset,
	};
	struct iocb *list[] = { &iocb };
	struct io_event event;
	aio_context_t context = 0;

	if (syscall(SYS_io_setup, 1, &context))
		die("io_setup");
	if (syscall(SYS_io_submit, context, 1, list) != 1)
		return answer(errno);
	if (syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1)
		die("io_getevents");
	if (event.res >= 0 && (size_t)event.res != length)
		return answer(ENOSPC);
	return answer(event.res < 0 ? -event.res : 0);
}

static int do_verify(const char *path, off_t offset, size_t length, unsigned long seed)
{
	int fd = open_or_die(path, O_RDONLY | O_DIRECT);
	unsigned char *want = pattern(length, seed);
	unsigned char *data = pattern(length, seed + 1);
	ssize_t done = pread(fd, data, length, offset);

	if (done < 0)
		return answer(errno);
	if ((size_t)done != length)
		return answer(ENODATA);
	return answer(memcmp(data, want, length) ? EILSEQ : 0);
}

static int do_fsync(const char *path)
{
	int fd = open_or_die(path, O_WRONLY);

	return answer(fsync(fd) ? errno : 0);
}

static int do_zero(const char *path, int how, off_t offset, off_t length)
{
	int fd = open_or_die(path, O_WRONLY);

	return answer(fallocate(fd, how | FALLOC_FL_KEEP_SIZE, offset, length) ? errno : 0);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "set") && (argc == 4 || argc == 5))
		return set(argv[2], argv[3], argc == 5 ? number(argv[4]) : 0);
	if (!strcmp(what, "wait") && argc == 5)
		return wait_for(argv[2], argv[3], number(argv[4]));
	if (!strcmp(what, "write") && argc == 6)
		return do_write(argv[2], number(argv[3]), number(argv[4]), number(argv[5]));
	if (!strcmp(what, "dsync") && argc == 6)
		return do_dsync(argv[2], number(argv[3]), number(argv[4]), number(argv[5]));
	if (!strcmp(what, "verify") && argc == 6)
		return do_verify(argv[2], number(argv[3]), number(argv[4]), number(argv[5]));
	if (!strcmp(what, "switch") && (argc == 4 || argc == 5))
		return do_switch(argv[2], number(argv[3]), argc == 5 ? number(argv[4]) : 0);
	if (!strcmp(what, "fsync") && argc == 3)
		return do_fsync(argv[2]);
	if (!strcmp(what, "zero") && argc == 5)
		return do_zero(argv[2], FALLOC_FL_ZERO_RANGE, number(argv[3]), number(argv[4]));
	if (!strcmp(what, "punch") && argc == 5)
		return do_zero(argv[2], FALLOC_FL_PUNCH_HOLE, number(argv[3]), number(argv[4]));
	fputs(usage, what[0] == '-' ? stdout : stderr);
	return !strcmp(what, "--help") ? 0 : 2;
}
