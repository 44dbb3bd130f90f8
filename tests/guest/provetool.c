// SPDX-License-Identifier: GPL-2.0
/*
 * provetool - the application of "make prove": it writes records, and tells the host of each one
 * that is durable by the rule it was written by. The host, which is the storage too, looks whether
 * that is so.
 *
 * Each sector of a block carries a record: which run of the tool wrote it, the block's number and a
 * sequence number that grows with every write of the block. An acknowledgement names a range of
 * blocks and their sequence number, and is one write to the port of the host.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define BLOCK		4096
#define SECTOR		512
#define MAX_DEPTH	64
#define MAX_WRITERS	64
#define MAX_PENDING	64

static const char usage[] =
"Usage: provetool load ack=PORT run=N seconds=N [OPTION=...]... writer=HOW[,KEY=VALUE]...\n"
"         cache_type=FILE   the attribute that says and sets the disk's mode\n"
"         toggle=US         switch it both ways meanwhile, with pauses of up to US microseconds\n"
"         by_hand=FILE      before each switch to write back, which is then often the mode in force,\n"
"                           write \"write through\" into FILE, which is queue/write_cache: durable is\n"
"                           only what comes after the switch\n"
"         steady=through    the mode is write through and nobody changes it, for HOW=plain\n"
"         HOW: fsync fdatasync dsync rwf aio aio-rwf aio-fsync uring uring-rwf uring-fsync\n"
"              uring-poll   as uring, on a ring that polls\n"
"              plain        while the mode is write through for the whole of the write\n"
"              switch       by the next switch to write through\n"
"              zero         as plain: a durable record is overwritten by a request for zeroes\n"
"              zero-fsync   the same, with an fsync\n"
"         KEY: path, first and blocks (numbers of the records), at (the block where they begin),\n"
"              size (bytes of a write), depth (writes in flight), buffered=1\n"
"       provetool relay ack=PORT run=N block=N\n"
"         each line of standard input ends in a sequence number, of block N, that is durable\n"
"       provetool find FILE\n"
"         the records in FILE: a line \"BLOCK SEQUENCE\" each, \"torn BLOCK\" for one in pieces\n";

struct record {
	uint32_t magic, run;
	uint64_t block, sequence, check;
};

struct acknowledgement {
	uint32_t magic, run;
	uint64_t block, sequence;
	uint32_t blocks, rule;
};

#define RECORD_MAGIC	0x57425655u
#define ACK_MAGIC	0x4b434155u

enum how { FSYNC, FDATASYNC, DSYNC, RWF, AIO, AIO_RWF, AIO_FSYNC, URING, URING_RWF, URING_FSYNC,
	   URING_POLL, PLAIN, SWITCH, ZERO, ZERO_FSYNC, HOWS, ROW = HOWS };

static const char * const how_names[HOWS] = { "fsync", "fdatasync", "dsync", "rwf", "aio", "aio-rwf",
	"aio-fsync", "uring", "uring-rwf", "uring-fsync", "uring-poll", "plain", "switch", "zero",
	"zero-fsync" };

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

static struct writer writers[MAX_WRITERS];
static unsigned int nr_writers;
static uint32_t run_number;
static int ack_fd = -1;
static atomic_int stop;

/*
 * What the mode is known to be. The toggling thread is the only one that changes it, or it is
 * steady. An odd number: write through, for as long as the number stays. "risk" is odd while flushes
 * are turned off by hand.
 */
static atomic_uint steady_through, risk;
/* Switches to write through that have begun and that have succeeded. */
static atomic_ulong through_begun, through_done;
static unsigned long switches, refused;

static void die(const char *what)
{
	fprintf(stderr, "provetool: %s: %s\n", what, strerror(errno));
	exit(2);
}

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

static void fill(struct slot *slot, unsigned int size)
{
	struct record record = { .magic = RECORD_MAGIC, .run = run_number, .sequence = slot->sequence };
	unsigned int at;

	for (at = 0; at < size; at += SECTOR) {
		if (!(at % BLOCK)) {
			record.block = slot->block + at / BLOCK;
			record.check = check_of(&record);
		}
		memcpy(slot->data + at, &record, sizeof(record));
	}
}

/* Not blocking: the kernel would spin until the host has read it. A serial line takes it in parts. */
static void acknowledge(struct writer *writer, const struct slot *slot)
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
static off_t prepare(struct writer *writer, struct slot *slot)
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
static void finish(struct writer *writer, struct slot *slot, long result, long expected)
{
	if (result != expected) {
		writer->failed++;
		writer->error = result < 0 ? -result : EIO;
		return;
	}
	if (slot->risk & 1 || slot->risk != atomic_load(&risk))
		return;
	if ((writer->how == PLAIN || writer->how == ZERO) && (!(slot->steady & 1) || slot->steady != atomic_load(&steady_through)))
		return;
	acknowledge(writer, slot);
}

static long result_of(long ret)
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

static void write_synchronously(struct writer *writer)
{
	while (!atomic_load(&stop)) {
		if (writer->how == ZERO || writer->how == ZERO_FSYNC)
			zero_one(writer, &writer->slots[0]);
		else
			write_one(writer, &writer->slots[0]);
	}
}

/* Plain writes, which the next switch to write through makes durable if it began after they ended. */
static void write_and_await_switch(struct writer *writer)
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

static void write_by_aio(struct writer *writer)
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

		if (n < 1)
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

	if (poll)
		params->flags = IORING_SETUP_IOPOLL;

	ring->fd = syscall(SYS_io_uring_setup, MAX_DEPTH, params);
	if (ring->fd < 0)
		die("io_uring_setup");
	ring->sq = mmap(NULL, params->sq_off.array + params->sq_entries * 4, prot, MAP_SHARED, ring->fd,
			IORING_OFF_SQ_RING);
	ring->cq = mmap(NULL, params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe), prot,
			MAP_SHARED, ring->fd, IORING_OFF_CQ_RING);
	ring->sqes = mmap(NULL, params->sq_entries * sizeof(*ring->sqes), prot, MAP_SHARED, ring->fd,
			  IORING_OFF_SQES);
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

static void write_by_uring(struct writer *writer)
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
		if (syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0 &&
		    errno != EINTR)
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

static void *write_records(void *arg)
{
	struct writer *writer = arg;

	switch (writer->how) {
	case AIO:
	case AIO_RWF:
	case AIO_FSYNC:
		write_by_aio(writer);
		break;
	case URING:
	case URING_RWF:
	case URING_FSYNC:
	case URING_POLL:
		write_by_uring(writer);
		break;
	case SWITCH:
		write_and_await_switch(writer);
		break;
	default:
		write_synchronously(writer);
	}
	return NULL;
}

static int set(int fd, const char *mode)
{
	int done = pwrite(fd, mode, strlen(mode), 0) == (ssize_t)strlen(mode);

	if (done)
		switches++;
	else
		refused++;
	return done;
}

static unsigned int pause_us;
static const char *cache_type, *by_hand;

/* Switches the mode both ways. Between a refusal and the next success nothing is known of it. */
static void *toggle(void *arg)
{
	int fd = open(cache_type, O_WRONLY | O_CLOEXEC), hand = -1;
	unsigned int seed = run_number;

	(void)arg;
	if (fd < 0)
		die(cache_type);
	if (by_hand) {
		hand = open(by_hand, O_WRONLY | O_CLOEXEC);
		if (hand < 0)
			die(by_hand);
	}
	while (!atomic_load(&stop)) {
		unsigned long begun = atomic_fetch_add(&through_begun, 1) + 1;

		if ((hand < 0 || rand_r(&seed) & 64) && set(fd, "write through")) {
			atomic_store(&through_done, begun);
			atomic_fetch_or(&steady_through, 1);
		}
		if (pause_us)
			usleep(rand_r(&seed) % pause_us);
		if (atomic_load(&steady_through) & 1)
			atomic_fetch_add(&steady_through, 1);
		if (hand >= 0) {
			atomic_fetch_add(&risk, 1);
			if (pwrite(hand, "write through", 13, 0) != 13)
				die(by_hand);
		}
		if (set(fd, "write back") && hand >= 0)
			atomic_fetch_add(&risk, 1);
		if (hand >= 0 && atomic_load(&risk) & 1)
			die("a switch to write back failed, and flushes stay off");
		if (pause_us)
			usleep(rand_r(&seed) % pause_us);
	}
	return NULL;
}

static unsigned long number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (!*text || *end) {
		fprintf(stderr, "provetool: '%s' is not a number\n", text);
		exit(2);
	}
	return value;
}

static void add_writer(char *text)
{
	char *keys[] = { "path", "first", "blocks", "at", "size", "depth", "buffered", NULL };
	struct writer *writer = &writers[nr_writers++];
	char *name = strsep(&text, ","), *value;
	int how, flags = O_RDWR | O_CLOEXEC;
	uint64_t per_slot;

	for (how = 0; how < HOWS && strcmp(name, how_names[how]); how++)
		;
	if (how == HOWS || nr_writers == MAX_WRITERS) {
		fprintf(stderr, "provetool: writer=%s?\n", name);
		exit(2);
	}
	*writer = (struct writer){ .how = how, .blocks = 64, .size = BLOCK, .depth = 1 };
	while (text && *text) {
		int key = getsubopt(&text, keys, &value);

		if (key < 0 || !value) {
			fprintf(stderr, "provetool: writer=%s,%s?\n", name, value);
			exit(2);
		}
		switch (key) {
		case 0: writer->path = value; break;
		case 1: writer->first = number(value); break;
		case 2: writer->blocks = number(value); break;
		case 3: writer->at = number(value); break;
		case 4: writer->size = number(value); break;
		case 5: writer->depth = number(value); break;
		default: writer->buffered = number(value);
		}
	}
	per_slot = writer->depth ? writer->blocks * BLOCK / writer->size / writer->depth : 0;
	if (!writer->path || writer->depth > MAX_DEPTH || !per_slot || writer->size % BLOCK) {
		fprintf(stderr, "provetool: writer=%s: path, depth, blocks or size\n", name);
		exit(2);
	}
	if (!writer->buffered)
		flags |= O_DIRECT;
	if (how == DSYNC || how == AIO || how == URING || how == URING_POLL)
		flags |= O_DSYNC;
	writer->fd = open(writer->path, flags | (strncmp(writer->path, "/dev/", 5) ? O_CREAT : 0), 0600);
	if (writer->fd < 0)
		die(writer->path);
	for (unsigned int i = 0; i < writer->depth; i++) {
		struct slot *slot = &writer->slots[i];

		slot->groups = per_slot;
		slot->first = writer->first + i * per_slot * (writer->size / BLOCK);
		if (posix_memalign((void **)&slot->data, BLOCK, writer->size))
			die("memory");
		memset(slot->data, 0x5a, writer->size);
	}
}

static int load(int argc, char **argv)
{
	pthread_t threads[MAX_WRITERS], toggler;
	unsigned long seconds = 0, acked = 0, failed = 0;
	unsigned int i;
	int toggling = 0, arg;

	for (arg = 2; arg < argc; arg++) {
		char *value = argv[arg], *key = strsep(&value, "=");

		if (!value)
			break;
		if (!strcmp(key, "ack"))
			ack_fd = open(value, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		else if (!strcmp(key, "run"))
			run_number = number(value);
		else if (!strcmp(key, "seconds"))
			seconds = number(value);
		else if (!strcmp(key, "cache_type"))
			cache_type = value;
		else if (!strcmp(key, "by_hand"))
			by_hand = value;
		else if (!strcmp(key, "toggle")) {
			pause_us = number(value);
			toggling = 1;
		} else if (!strcmp(key, "steady") && !strcmp(value, "through"))
			atomic_store(&steady_through, 1);
		else if (!strcmp(key, "writer"))
			add_writer(value);
		else
			break;
	}
	if (arg != argc || !nr_writers || !seconds || (toggling && !cache_type)) {
		fputs(usage, stderr);
		return 2;
	}
	if (ack_fd < 0)
		die("the host's port");

	for (i = 0; i < nr_writers; i++)
		if (pthread_create(&threads[i], NULL, write_records, &writers[i]))
			die("a thread");
	if (toggling && pthread_create(&toggler, NULL, toggle, NULL))
		die("a thread");
	sleep(seconds);
	atomic_store(&stop, 1);
	if (toggling)
		pthread_join(toggler, NULL);
	for (i = 0; i < nr_writers; i++) {
		pthread_join(threads[i], NULL);
		acked += writers[i].acked;
		failed += writers[i].failed;
		printf("writer %s acked %lu failed %lu %s\n", how_names[writers[i].how], writers[i].acked,
		       writers[i].failed, writers[i].error ? strerrorname_np(writers[i].error) : "OK");
	}
	printf("acked=%lu failed=%lu switches=%lu refused=%lu\n", acked, failed, switches, refused);
	return 0;
}

/* For an application that can say no more than which of its rows it has committed. */
static int relay(int argc, char **argv)
{
	struct writer writer = { .how = ROW, .size = BLOCK };
	struct slot slot = { 0 };
	char line[256];

	for (int arg = 2; arg < argc; arg++) {
		char *value = argv[arg], *key = strsep(&value, "=");

		if (value && !strcmp(key, "ack"))
			ack_fd = open(value, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		else if (value && !strcmp(key, "run"))
			run_number = number(value);
		else if (value && !strcmp(key, "block"))
			slot.block = number(value);
	}
	if (ack_fd < 0)
		die("the host's port");
	while (fgets(line, sizeof(line), stdin)) {
		char *digits = line + strcspn(line, "\n");

		*digits = '\0';
		while (digits > line && digits[-1] >= '0' && digits[-1] <= '9')
			digits--;
		if (!*digits)
			continue;
		slot.sequence = (uint64_t)run_number << 40 | strtoul(digits, NULL, 10);
		acknowledge(&writer, &slot);
	}
	printf("acked=%lu failed=0 switches=0 refused=0\n", writer.acked);
	return 0;
}

static int find(const char *path)
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
			torn |= memcmp(&first, &other, sizeof(first)) || other.check != check_of(&other);
		}
		if (first.magic != RECORD_MAGIC)
			continue;
		if (torn)
			printf("torn %llu\n", (unsigned long long)first.block);
		else
			printf("%llu %llu\n", (unsigned long long)first.block, (unsigned long long)first.sequence);
	}
	if (length < 0)
		die(path);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "load"))
		return load(argc, argv);
	if (!strcmp(what, "relay") && argc == 5)
		return relay(argc, argv);
	if (!strcmp(what, "find") && argc == 3)
		return find(argv[2]);
	fputs(usage, what[0] == '-' ? stdout : stderr);
	return !strcmp(what, "--help") ? 0 : 2;
}
