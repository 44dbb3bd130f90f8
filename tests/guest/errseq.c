// SPDX-License-Identifier: GPL-2.0
/*
 * errseq - does a synchronous write that has failed always fail?
 *
 * Threads write 4 KiB blocks with O_DSYNC, some to sound places, others to such
 * where the device fails every write. See Documentation/fua-by-dsync.rst.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BLOCK       4096
#define BLOCKS      256		/* of each kind */
#define MAX_THREADS 64

static const char usage[] =
"Usage: errseq write FILE shared|separate|watched buffered|direct SOUND FAILING OFFSET WRITES SECONDS\n"
"         with SOUND threads at the start of FILE and FAILING ones at OFFSET,\n"
"         until WRITES have been made there or SECONDS are over; with one\n"
"         descriptor for all threads, or one for each kind of them, or one for\n"
"         all and another that is asked for errors that went to somebody else\n"
"       errseq map FILE OFFSET\n"
"         where on its device the failing blocks are: first sector and number\n"
"         of sectors of each piece\n";

static char buffer[BLOCK] __attribute__((aligned(BLOCK)));
static atomic_bool stop;

/* A descriptor that nobody writes to, and how often it has told of an error. */
static int watch = -1;
static atomic_long errors;
static pthread_mutex_t watch_lock = PTHREAD_MUTEX_INITIALIZER;

struct kind {
	int fd;
	off_t offset;
	atomic_long done, failed;
};

/*
 * Whether no error was recorded for the file since there were this many. There
 * are no pages to wait for, so all that comes back is what was recorded since
 * the last call. The lock makes who comes meanwhile wait until it is counted.
 */
static bool none_since(long before)
{
	if (watch < 0)
		return true;
	pthread_mutex_lock(&watch_lock);
	if (sync_file_range(watch, INT64_MAX - 1, 1, SYNC_FILE_RANGE_WAIT_BEFORE) < 0)
		errors++;
	pthread_mutex_unlock(&watch_lock);
	return errors == before;
}

static void *writer(void *arg)
{
	struct kind *kind = arg;
	unsigned int seed = (unsigned long)pthread_self();

	while (!stop) {
		off_t place = kind->offset + rand_r(&seed) % BLOCKS * (off_t)BLOCK;
		long before = errors;

		if (pwrite(kind->fd, buffer, BLOCK, place) == BLOCK && none_since(before))
			kind->done++;
		else
			kind->failed++;
	}
	return NULL;
}

static int open_or_exit(const char *name, int flags)
{
	int fd = open(name, flags);

	if (fd < 0) {
		perror(name);
		exit(2);
	}
	return fd;
}

static int map(char **argv)
{
	struct {
		struct fiemap head;
		struct fiemap_extent extents[BLOCKS];
	} request = {
		.head = {
			.fm_start = strtoll(argv[3], NULL, 0),
			.fm_length = BLOCKS * BLOCK,
			.fm_flags = FIEMAP_FLAG_SYNC,
			.fm_extent_count = BLOCKS,
		},
	};

	if (ioctl(open_or_exit(argv[2], O_RDONLY), FS_IOC_FIEMAP, &request) < 0) {
		perror(argv[2]);
		return 2;
	}
	for (unsigned int i = 0; i < request.head.fm_mapped_extents; i++) {
		struct fiemap_extent *extent = &request.extents[i];
		unsigned long long from = request.head.fm_start, to = from + BLOCKS * BLOCK;

		/* What sticks out at either end is not ours. */
		if (from < extent->fe_logical)
			from = extent->fe_logical;
		if (to > extent->fe_logical + extent->fe_length)
			to = extent->fe_logical + extent->fe_length;
		printf("%llu %llu\n", (extent->fe_physical + from - extent->fe_logical) / 512,
		       (to - from) / 512);
	}
	return 0;
}

static int write_both(char **argv)
{
	int flags = O_RDWR | O_DSYNC | (strcmp(argv[4], "direct") ? 0 : O_DIRECT);
	int threads[] = { atoi(argv[5]), atoi(argv[6]) };
	long writes = atol(argv[8]), tenths = 10 * atol(argv[9]);
	struct kind kinds[2] = {
		{ .fd = open_or_exit(argv[2], flags) },
		{ .offset = strtoll(argv[7], NULL, 0) },
	};
	pthread_t ids[MAX_THREADS];
	int number = 0;

	kinds[1].fd = strcmp(argv[3], "separate") ? kinds[0].fd : open_or_exit(argv[2], flags);
	if (!strcmp(argv[3], "watched"))
		watch = open_or_exit(argv[2], O_RDONLY);
	memset(buffer, 7, sizeof(buffer));
	for (int kind = 0; kind < 2; kind++)
		for (int i = 0; i < threads[kind] && number < MAX_THREADS; i++)
			pthread_create(&ids[number++], NULL, writer, &kinds[kind]);
	while (kinds[1].done + kinds[1].failed < writes && tenths-- > 0)
		usleep(100000);
	stop = true;
	for (int i = 0; i < number; i++)
		pthread_join(ids[i], NULL);
	printf("sound: %ld done, %ld failed; failing: %ld done, %ld failed\n", kinds[0].done,
	       kinds[0].failed, kinds[1].done, kinds[1].failed);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 10 && !strcmp(argv[1], "write"))
		return write_both(argv);
	if (argc == 4 && !strcmp(argv[1], "map"))
		return map(argv);
	fputs(usage, stderr);
	return 2;
}
