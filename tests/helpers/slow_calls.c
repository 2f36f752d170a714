/* A file system that lets one wait, as those of a network do, below all that a program loads:

   gcc -O2 -shared -fPIC -o /tmp/slow_calls.so tests/helpers/slow_calls.c -ldl
   LD_PRELOAD=/tmp/slow_calls.so SLOW_BELOW=/dev/shm/many python tests/helpers/opening_cost.py first /dev/shm/many

   Each open, opendir, stat, fstat and read of what lies below SLOW_BELOW takes a millisecond longer. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST 65536 /* file descriptors */
#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

static char slow[MOST];

static int below(const char *path) {
    const char *root = getenv("SLOW_BELOW");
    return root && path && !strncmp(path, root, strlen(root));
}

static void wait_a_millisecond(int when) {
    struct timespec millisecond = {0, 1000000};
    if (when) nanosleep(&millisecond, 0);
}

static int is_slow(int file) { return file >= 0 && file < MOST && slow[file]; }

static int mark(int file, int is_below) {
    if (file >= 0 && file < MOST) slow[file] = is_below;
    return file;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
        wait_a_millisecond(below(path)); \
        return mark(real(path, flags, mode), below(path)); \
    }
#define STAT(name, kind) \
    int name(const char *path, struct kind *status) { \
        REAL(name); \
        wait_a_millisecond(below(path)); \
        return real(path, status); \
    }
#define FSTAT(name, kind) \
    int name(int file, struct kind *status) { \
        REAL(name); \
        wait_a_millisecond(is_slow(file)); \
        return real(file, status); \
    }

OPEN(open)
OPEN(open64)
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)

int close(int file) {
    REAL(close);
    mark(file, 0);
    return real(file);
}

ssize_t read(int file, void *into, size_t count) {
    REAL(read);
    wait_a_millisecond(is_slow(file));
    return real(file, into, count);
}

DIR *opendir(const char *path) {
    REAL(opendir);
    wait_a_millisecond(below(path));
    return real(path);
}
