/* A preloaded library that adds the seconds in the file $SKEW_FILE (eight bytes, mapped) to the wall clock.
 * Monotonic clocks, sleeps and timeouts stay correct. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *skew;
static const int64_t none = 0;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SKEW_FILE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd >= 0 ? mmap(NULL, sizeof *skew, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (fd >= 0) close(fd);
    if (page != MAP_FAILED) skew = page;
}

static int64_t offset(void) { return skew ? *skew : none; }

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    int rc;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    rc = real(clock, at);
    if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += offset();
    return rc;
}

int gettimeofday(struct timeval *at, void *zone) {
    static int (*real)(struct timeval *, void *);
    int rc;
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    rc = real(at, zone);
    if (rc == 0 && at) at->tv_sec += offset();
    return rc;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
