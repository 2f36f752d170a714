/* mpirun of Open MPI 4 listens on all interfaces, also where all ranks are on this machine, and has no setting against it
 * (https://github.com/open-mpi/ompi/issues/14441).  Loaded into it by horovodrun (LD_PRELOAD), this makes "all" mean the
 * loopback.  In every other process it takes its name out of the environment, and does nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int in_launcher(void) {
    return strncmp(program_invocation_short_name, "mpirun", 6) == 0 ||
           strncmp(program_invocation_short_name, "orterun", 7) == 0;
}

/* horovodrun has put this library's name before those that the user has there. */
__attribute__((constructor)) static void leave_no_trace(void) {
    const char *names = getenv("LD_PRELOAD");
    if (in_launcher() || !names) return;
    const char *rest = strchr(names, ':');
    if (rest)
        setenv("LD_PRELOAD", rest + 1, 1);
    else
        unsetenv("LD_PRELOAD");
}

int bind(int descriptor, const struct sockaddr *address, socklen_t length) {
    int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
    struct sockaddr_storage own;
    if (in_launcher() && length <= sizeof own) {
        memcpy(&own, address, length);
        struct sockaddr_in *four = (struct sockaddr_in *)&own;
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)&own;
        if (own.ss_family == AF_INET && four->sin_addr.s_addr == htonl(INADDR_ANY))
            four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        else if (own.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr))
            six->sin6_addr = in6addr_loopback;
        return next(descriptor, (struct sockaddr *)&own, length);
    }
    return next(descriptor, address, length);
}
