// SPDX-License-Identifier: GPL-2.0
/* The guest's switches of the mode. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "provetool.h"

static int set(struct toggle *how, int fd, const char *mode)
{
	int done = pwrite(fd, mode, strlen(mode), 0) == (ssize_t)strlen(mode);

	if (done)
		atomic_fetch_add(&how->switches, 1);
	else
		how->refused++;
	/* The disk is gone, and so is everything else to be done. */
	if (!done && errno == ENODEV)
		atomic_store(&how->gone, 1);
	return done;
}

/* Switches the mode both ways. Between a refusal and the next success nothing is known of it. */
void *toggle(void *arg)
{
	struct toggle *how = arg;
	int fd = open(how->cache_type, O_WRONLY | O_CLOEXEC), hand = -1;
	unsigned int seed = run_number;

	if (fd < 0)
		die(how->cache_type);
	if (how->by_hand) {
		hand = open(how->by_hand, O_WRONLY | O_CLOEXEC);
		if (hand < 0)
			die(how->by_hand);
	}
	while (!atomic_load(&stop) && !atomic_load(&how->gone)) {
		unsigned long begun = atomic_fetch_add(&through_begun, 1) + 1;

		if ((hand < 0 || rand_r(&seed) & 64) && set(how, fd, "write through")) {
			atomic_store(&through_done, begun);
			atomic_fetch_or(&steady_through, 1);
		}
		if (how->pause_us)
			usleep(rand_r(&seed) % how->pause_us);
		if (atomic_load(&steady_through) & 1)
			atomic_fetch_add(&steady_through, 1);
		if (hand >= 0) {
			atomic_fetch_add(&risk, 1);
			if (pwrite(hand, "write through", 13, 0) != 13)
				die(how->by_hand);
		}
		if (set(how, fd, "write back") && hand >= 0)
			atomic_fetch_add(&risk, 1);
		if (hand >= 0 && atomic_load(&risk) & 1)
			die("a switch to write back failed, and flushes stay off");
		if (how->pause_us)
			usleep(rand_r(&seed) % how->pause_us);
	}
	return NULL;
}
