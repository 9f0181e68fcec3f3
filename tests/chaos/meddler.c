/* A library put under the proxy (LD_PRELOAD) that makes its clock jump and its directory read-only.
 *
 * Owns: the two lies that it tells the program above it. Knows nothing of: when they are told (`meddling.py`).
 *
 * CHAOS_CONTROL names a file of 16 bytes that is mapped: a signed 64 bit number of nanoseconds that is added to the time
 * of day, and a signed 64 bit error number; while that is not 0, whatever would change something below the directory
 * CHAOS_DIRECTORY fails with it. Nothing that is open already is spared, as when a kernel makes a file system read-only
 * because of an error. What is mapped (SQLite's index of its log) goes on as before.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t offset;
    int64_t refusal;
};

static volatile struct control *control;
static char directory[4096];
static size_t length;

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("CHAOS_CONTROL");
    const char *below = getenv("CHAOS_DIRECTORY");
    if (below != NULL && strlen(below) < sizeof directory) {
        strcpy(directory, below);
        length = strlen(directory);
    }
    if (file == NULL)
        return;
    int opened = open(file, O_RDONLY | O_CLOEXEC);
    if (opened < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, opened, 0);
    close(opened);
    if (mapped != MAP_FAILED)
        control = mapped;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (real == NULL) \
        real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

/* The time of day */

static int64_t offset(void)
{
    return control == NULL ? 0 : control->offset;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    REAL(clock_gettime);
    int failed = real(clock, at);
    if (failed == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t nanos = (int64_t)at->tv_sec * 1000000000 + at->tv_nsec + offset();
        at->tv_sec = nanos / 1000000000;
        at->tv_nsec = nanos % 1000000000;
    }
    return failed;
}

int gettimeofday(struct timeval *at, void *zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL)
        *at = now.tv_sec;
    return now.tv_sec;
}

/* The directory */

static int below(const char *path)
{
    return length > 0 && strncmp(path, directory, length) == 0;
}

static int refused_path(const char *path)
{
    if (control == NULL || control->refusal == 0 || !below(path))
        return 0;
    errno = (int)control->refusal;
    return 1;
}

static int refused(int file)
{
    char link[64], path[4096];
    if (control == NULL || control->refusal == 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = '\0';
    return refused_path(path);
}

ssize_t write(int file, const void *data, size_t size)
{
    REAL(write);
    return refused(file) ? -1 : real(file, data, size);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at)
{
    REAL(pwrite);
    return refused(file) ? -1 : real(file, data, size, at);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at)
{
    REAL(pwrite64);
    return refused(file) ? -1 : real(file, data, size, at);
}

int ftruncate(int file, off_t size)
{
    REAL(ftruncate);
    return refused(file) ? -1 : real(file, size);
}

int ftruncate64(int file, off64_t size)
{
    REAL(ftruncate64);
    return refused(file) ? -1 : real(file, size);
}

static int refused_opening(const char *path, int flags)
{
    return (flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR)) != 0 && refused_path(path);
}

static mode_t mode_of(int flags, va_list more)
{
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    REAL(open);
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return refused_opening(path, flags) ? -1 : real(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    REAL(open64);
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return refused_opening(path, flags) ? -1 : real(path, flags, mode);
}

int unlink(const char *path)
{
    REAL(unlink);
    return refused_path(path) ? -1 : real(path);
}

int rename(const char *from, const char *to)
{
    REAL(rename);
    return refused_path(from) || refused_path(to) ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    return refused_path(path) ? -1 : real(path, mode);
}
