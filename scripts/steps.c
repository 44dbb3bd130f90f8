// SPDX-License-Identifier: GPL-2.0
/*
 * Counts the instructions of a program's first thread, one step after the other: where a machine
 * has no counters of its own this needs nothing but ptrace().
 *
 * Usage: steps CMD [ARG...]
 *
 * Each line of the standard input starts the count, which is answered with a line, and SIGUSR1
 * ends it. Then the number is printed, and the thread stands still until the next line. A repeated
 * string instruction counts once for each repetition. At the end of the input CMD is killed.
 */

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_bool stop;

static void on_signal(int number)
{
	(void)number;
	stop = true;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Returns false if a signal came first. */
static bool wait_stopped(pid_t child, int *status)
{
	if (waitpid(child, status, __WALL) < 0) {
		if (errno != EINTR)
			die("waitpid");
		return false;
	}
	if (!WIFSTOPPED(*status)) {
		fprintf(stderr, "the program has ended\n");
		exit(1);
	}
	return true;
}

static unsigned long long count(pid_t child)
{
	struct sigaction action = { .sa_handler = on_signal };
	unsigned long long steps = 0;
	int status = 0;

	stop = false;
	sigaction(SIGUSR1, &action, NULL);
	while (!stop) {
		int number = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);

		if (ptrace(PTRACE_SINGLESTEP, child, 0, number))
			die("PTRACE_SINGLESTEP");
		/* It may sleep for any time. The signal has to be sent until there is an answer. */
		while (!wait_stopped(child, &status))
			if (stop && ptrace(PTRACE_INTERRUPT, child, 0, 0))
				die("PTRACE_INTERRUPT");
		steps++;
	}
	signal(SIGUSR1, SIG_IGN);
	return steps;
}

int main(int argc, char **argv)
{
	bool is_traced = false;
	int status;
	char line[80];
	pid_t child;

	if (argc < 2) {
		fprintf(stderr, "usage: steps CMD [ARG...]\n");
		return 2;
	}
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		/* Addresses decide what a hash table does. */
		personality(ADDR_NO_RANDOMIZE);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execvp(argv[1], argv + 1);
		die(argv[1]);
	}
	signal(SIGUSR1, SIG_IGN);
	while (fgets(line, sizeof(line), stdin)) {
		if (!is_traced) {
			if (ptrace(PTRACE_SEIZE, child, 0, 0) ||
			    ptrace(PTRACE_INTERRUPT, child, 0, 0))
				die("ptrace");
			while (!wait_stopped(child, &status))
				;
			is_traced = true;
		}
		printf("started\n");
		fflush(stdout);
		printf("%llu\n", count(child));
		fflush(stdout);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return 0;
}
