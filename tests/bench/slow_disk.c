/* Every sync of the program takes longer, by as many nanoseconds as HOLDFAST_BENCH_SYNC_NS says. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void rest(void) {
    const char *said = getenv("HOLDFAST_BENCH_SYNC_NS");
    long long nanoseconds = said ? atoll(said) : 0;
    struct timespec left = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    while (nanoseconds > 0 && nanosleep(&left, &left) != 0) {
    }
}

int fsync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int outcome = real(file);
    rest();
    return outcome;
}

int fdatasync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int outcome = real(file);
    rest();
    return outcome;
}
