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
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "provetool.h"

static const char usage[] =
"Usage: provetool load ack=PORT run=N seconds=N [OPTION=...]... writer=HOW[,KEY=VALUE]...\n"
"         until=FILE        end before that when there is FILE\n"
"         cache_type=FILE   the attribute that says and sets the disk's mode\n"
"         toggle=US         switch it both ways meanwhile, with pauses of up to US microseconds; the\n"
"                           load lasts longer if there were hardly any switches by then\n"
"         by_hand=FILE      before each switch to write back, often the mode in force, write\n"
"                           \"write through\" into FILE, which is queue/write_cache: durable is only\n"
"                           what comes after the switch\n"
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
"         a line of standard input that ends in \"row SEQUENCE\" says that this is durable, of block N\n"
"       provetool find FILE\n"
"         the records in FILE: a line \"BLOCK SEQUENCE\" each, \"torn BLOCK\" for one in pieces\n";

static const char * const how_names[HOWS] = {
	"fsync", "fdatasync", "dsync", "rwf", "aio", "aio-rwf", "aio-fsync", "uring", "uring-rwf",
	"uring-fsync", "uring-poll", "plain", "switch", "zero", "zero-fsync"
};

static struct writer writers[MAX_WRITERS];
static unsigned int nr_writers;
static struct toggle toggling;

#define LEAST_SWITCHES	30
#define MAX_LONGER	180

void die(const char *what)
{
	fprintf(stderr, "provetool: %s: %s\n", what, strerror(errno));
	exit(2);
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
		case 0:
			writer->path = value;
			break;
		case 1:
			writer->first = number(value);
			break;
		case 2:
			writer->blocks = number(value);
			break;
		case 3:
			writer->at = number(value);
			break;
		case 4:
			writer->size = number(value);
			break;
		case 5:
			writer->depth = number(value);
			break;
		default:
			writer->buffered = number(value);
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
	if (strncmp(writer->path, "/dev/", 5))
		flags |= O_CREAT;
	writer->fd = open(writer->path, flags, 0600);
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
	unsigned long seconds = 0, waited, acked = 0, failed = 0;
	const char *stop_file = NULL;
	unsigned int i;
	int toggles = 0, arg;

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
		else if (!strcmp(key, "until"))
			stop_file = value;
		else if (!strcmp(key, "cache_type"))
			toggling.cache_type = value;
		else if (!strcmp(key, "by_hand"))
			toggling.by_hand = value;
		else if (!strcmp(key, "toggle")) {
			toggling.pause_us = number(value);
			toggles = 1;
		} else if (!strcmp(key, "steady") && !strcmp(value, "through"))
			atomic_store(&steady_through, 1);
		else if (!strcmp(key, "writer"))
			add_writer(value);
		else
			break;
	}
	if (arg != argc || !nr_writers || !seconds || (toggles && !toggling.cache_type)) {
		fputs(usage, stderr);
		return 2;
	}
	if (ack_fd < 0)
		die("the host's port");

	for (i = 0; i < nr_writers; i++)
		if (pthread_create(&threads[i], NULL, write_records, &writers[i]))
			die("a thread");
	if (toggles && pthread_create(&toggler, NULL, toggle, &toggling))
		die("a thread");
	/* What a slow machine has not switched often enough says nothing. */
	for (waited = 0; waited < seconds + MAX_LONGER; waited++) {
		if ((waited >= seconds || (stop_file && !access(stop_file, F_OK))) &&
		    (!toggles || atomic_load(&toggling.gone) ||
		     atomic_load(&toggling.switches) >= LEAST_SWITCHES))
			break;
		sleep(1);
	}
	atomic_store(&stop, 1);
	if (toggles)
		pthread_join(toggler, NULL);
	for (i = 0; i < nr_writers; i++) {
		pthread_join(threads[i], NULL);
		acked += writers[i].acked;
		failed += writers[i].failed;
		printf("writer %s acked %lu failed %lu %s\n", how_names[writers[i].how],
		       writers[i].acked, writers[i].failed,
		       writers[i].error ? strerrorname_np(writers[i].error) : "OK");
	}
	printf("acked=%lu failed=%lu switches=%lu refused=%lu\n", acked, failed,
	       atomic_load(&toggling.switches), toggling.refused);
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
		const char *row = strstr(line, "row ");
		char *end;
		unsigned long sequence;

		/* Programs say other things, too, some of which end in a number. */
		if (!row)
			continue;
		sequence = strtoul(row + 4, &end, 10);
		if (end == row + 4 || *end != '\n')
			continue;
		slot.sequence = (uint64_t)run_number << 40 | sequence;
		acknowledge(&writer, &slot);
	}
	printf("acked=%lu failed=0 switches=0 refused=0\n", writer.acked);
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
