/*
 * tool: what busybox lacks and the test guest needs. One static file, run by /init.
 *
 *   tool buttons              listens, in the background once it returns, for the power button and
 *                             Ctrl-Alt-Del; says which, and powers off
 *   tool vsock-serve PORT     answers one line of each connection on AF_VSOCK PORT, for ever
 *   tool vsock-send CID PORT TEXT
 *                             sends TEXT as one line and prints the line that comes back
 *
 * Everything is printed to stdout, which is the console, as lines that begin with "GUEST ".
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_INPUTS 16
#define LINE_BYTES 1024

static _Noreturn void fail(const char *what)
{
	printf("GUEST %s: %s\n", what, strerror(errno));
	exit(1);
}

static void power_off(const char *why)
{
	printf("GUEST %s: powering off\n", why);
	sync();
	reboot(RB_POWER_OFF);
	fail("power off");
}

static void on_ctrl_alt_del(int signal)
{
	(void)signal;
	power_off("ctrl-alt-del");
}

/* Makes the kernel tell that process of Ctrl-Alt-Del instead of rebooting (proc(5)). */
static void give_ctrl_alt_del_to(pid_t pid)
{
	FILE *f = fopen("/proc/sys/kernel/cad_pid", "w");

	if (!f || fprintf(f, "%d\n", (int)pid) < 0 || fclose(f))
		fail("cad_pid");
	reboot(RB_DISABLE_CAD);
}

static int open_inputs(struct pollfd *inputs)
{
	char path[32];
	int n = 0;

	for (int i = 0; i < MAX_INPUTS; i++) {
		snprintf(path, sizeof path, "/dev/input/event%d", i);
		inputs[n].fd = open(path, O_RDONLY | O_CLOEXEC);
		inputs[n].events = POLLIN;
		if (inputs[n].fd >= 0)
			n++;
	}
	return n;
}

static _Noreturn void listen_to(struct pollfd *inputs, int n)
{
	struct input_event event;

	for (;;) {
		poll(inputs, n, -1);
		for (int i = 0; i < n; i++) {
			if (!(inputs[i].revents & POLLIN))
				continue;
			if (read(inputs[i].fd, &event, sizeof event) != sizeof event)
				continue;
			if (event.type == EV_KEY && event.code == KEY_POWER && event.value)
				power_off("power button");
		}
	}
}

/* The inputs are open and the signal is taken before the fork: nothing pressed later is lost. */
static void buttons(void)
{
	struct pollfd inputs[MAX_INPUTS];
	int n = open_inputs(inputs);
	pid_t child;

	signal(SIGINT, on_ctrl_alt_del);
	child = fork();
	if (child < 0)
		fail("fork");
	if (!child)
		listen_to(inputs, n);
	give_ctrl_alt_del_to(child);
}

static unsigned local_cid(void)
{
	unsigned cid = VMADDR_CID_ANY;
	int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid))
		fail("vsock local cid");
	close(fd);
	return cid;
}

static int vsock(void)
{
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("vsock socket");
	return fd;
}

/* Reads up to the first newline or the end; returns the text without it. */
static char *read_line(int fd, char *line)
{
	size_t n = 0;

	while (n < LINE_BYTES - 1 && read(fd, line + n, 1) == 1 && line[n] != '\n')
		n++;
	line[n] = 0;
	return line;
}

static _Noreturn void vsock_serve(unsigned port)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_port = port,
				       .svm_cid = VMADDR_CID_ANY };
	char line[LINE_BYTES];
	unsigned cid = local_cid();
	int listener = vsock();

	if (bind(listener, (void *)&address, sizeof address) || listen(listener, 8))
		fail("vsock listen");
	printf("GUEST vsock cid %u listening on %u\n", cid, port);
	for (;;) {
		socklen_t size = sizeof address;
		int peer = accept(listener, (void *)&address, &size);

		if (peer < 0)
			fail("vsock accept");
		read_line(peer, line);
		dprintf(peer, "guest %u got: %s\n", cid, line);
		close(peer);
		printf("GUEST vsock served cid %u: %s\n", address.svm_cid, line);
	}
}

static void vsock_send(unsigned cid, unsigned port, const char *text)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_port = port, .svm_cid = cid };
	char line[LINE_BYTES];
	int fd = vsock();

	if (connect(fd, (void *)&address, sizeof address))
		fail("vsock connect");
	if (dprintf(fd, "%s\n", text) < 0)
		fail("vsock write");
	printf("GUEST vsock answer: %s\n", read_line(fd, line));
}

int main(int count, char **words)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (count == 2 && !strcmp(words[1], "buttons")) {
		buttons();
		return 0;
	}
	if (count == 3 && !strcmp(words[1], "vsock-serve"))
		vsock_serve(atoi(words[2]));
	if (count == 5 && !strcmp(words[1], "vsock-send")) {
		vsock_send(atoi(words[2]), atoi(words[3]), words[4]);
		return 0;
	}
	fprintf(stderr, "usage: tool buttons | vsock-serve PORT | vsock-send CID PORT TEXT\n");
	return 2;
}
