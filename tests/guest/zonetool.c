// SPDX-License-Identifier: GPL-2.0
/*
 * zonetool - the system calls for zones that a shell cannot make.
 *
 * Prints OK, or the name of the error; a report prints a line for each zone
 * first. Exit code 0 when the call was made, 2 when it could not be made.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/blkzoned.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char usage[] =
"Usage: zonetool report DISK SECTOR ZONES\n"
"         at most that many zones, from the one that SECTOR is in on: start,\n"
"         length, capacity, written sectors, type and condition of each\n"
"       zonetool reset|open|close|finish DISK SECTOR SECTORS\n"
"         all zones in that range\n";

static const struct {
	const char *name;
	unsigned long request;
} actions[] = {
	{ "reset", BLKRESETZONE },
	{ "open", BLKOPENZONE },
	{ "close", BLKCLOSEZONE },
	{ "finish", BLKFINISHZONE },
};

static const char *condition(unsigned int value)
{
	switch (value) {
	case BLK_ZONE_COND_NOT_WP:
		return "none";
	case BLK_ZONE_COND_EMPTY:
		return "empty";
	case BLK_ZONE_COND_IMP_OPEN:
		return "implicit";
	case BLK_ZONE_COND_EXP_OPEN:
		return "explicit";
	case BLK_ZONE_COND_CLOSED:
		return "closed";
	case BLK_ZONE_COND_READONLY:
		return "read-only";
	case BLK_ZONE_COND_FULL:
		return "full";
	case BLK_ZONE_COND_OFFLINE:
		return "offline";
	default:
		return "unknown";
	}
}

static const char *type(unsigned int value)
{
	switch (value) {
	case BLK_ZONE_TYPE_CONVENTIONAL:
		return "conventional";
	case BLK_ZONE_TYPE_SEQWRITE_REQ:
		return "sequential";
	case BLK_ZONE_TYPE_SEQWRITE_PREF:
		return "preferred";
	default:
		return "unknown";
	}
}

static unsigned long long number(const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 0);

	if (!*text || *end) {
		fprintf(stderr, "zonetool: '%s' is not a number\n", text);
		exit(2);
	}
	return value;
}

static int answer(int error)
{
	puts(error ? strerrorname_np(error) : "OK");
	return 0;
}

static int report(int fd, unsigned long long sector, unsigned int zones)
{
	struct blk_zone_report *found = calloc(1, sizeof(*found) + zones * sizeof(found->zones[0]));
	unsigned int i;

	if (!found) {
		perror("zonetool");
		return 2;
	}
	found->sector = sector;
	found->nr_zones = zones;
	if (ioctl(fd, BLKREPORTZONE, found))
		return answer(errno);
	for (i = 0; i < found->nr_zones; i++) {
		const struct blk_zone *zone = &found->zones[i];

		printf("%llu %llu %llu %llu %s %s\n", zone->start, zone->len, zone->capacity,
		       zone->type == BLK_ZONE_TYPE_CONVENTIONAL ? 0 : zone->wp - zone->start,
		       type(zone->type), condition(zone->cond));
	}
	return answer(0);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	unsigned int i;
	int fd;

	if (argc != 5) {
		fputs(usage, what[0] == '-' ? stdout : stderr);
		return !strcmp(what, "--help") ? 0 : 2;
	}
	fd = open(argv[2], (!strcmp(what, "report") ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fd < 0) {
		perror(argv[2]);
		return 2;
	}
	if (!strcmp(what, "report"))
		return report(fd, number(argv[3]), number(argv[4]));
	for (i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
		struct blk_zone_range range = { number(argv[3]), number(argv[4]) };

		if (!strcmp(what, actions[i].name))
			return answer(ioctl(fd, actions[i].request, &range) ? errno : 0);
	}
	fputs(usage, stderr);
	return 2;
}
