/* A preloaded library that records which bytes of the files in $FORGET_FOLDER survive a power cut.
 *
 * After each successful fsync or fdatasync it appends "inode length" to $FORGET_LOG. The length is the one before the
 * call, because bytes written during the call may be lost. To simulate the crash, truncate each file to its last
 * logged length. While the file $FORGET_FULL exists, writes to files in the folder fail with ENOSPC. $FORGET_SLOW_MS delays
 * each fsync by that many milliseconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int in_folder(int fd, struct stat *st) {
    const char *folder = getenv("FORGET_FOLDER");
    char link[64], path[PATH_MAX];
    ssize_t length;
    int before = errno;
    if (!folder || fstat(fd, st) != 0 || !S_ISREG(st->st_mode)) { errno = before; return 0; }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length <= 0) return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int full(int fd) {
    const char *flag = getenv("FORGET_FULL");
    struct stat st;
    int before = errno, yes = flag && access(flag, F_OK) == 0 && in_folder(fd, &st);
    errno = before;
    return yes;
}

static void slow_down(void) {
    const char *ms = getenv("FORGET_SLOW_MS");
    if (ms) usleep((useconds_t)atoi(ms) * 1000);
}

static void record_durable(const struct stat *st) {
    static ssize_t (*real_write)(int, const void *, size_t);
    char line[64];
    int before = errno, length = snprintf(line, sizeof line, "%lu %ld\n", (unsigned long)st->st_ino, (long)st->st_size);
    const char *log = getenv("FORGET_LOG");
    int fd = log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (!real_write) real_write = dlsym(RTLD_NEXT, "write");
    if (fd >= 0) {
        if (real_write(fd, line, (size_t)length) != length) abort();
        close(fd);
    }
    errno = before;
}

#define SYNC(name)                                            \
    int name(int fd) {                                        \
        static int (*real)(int);                              \
        struct stat st;                                       \
        int inside = in_folder(fd, &st), rc;                  \
        if (!real) real = dlsym(RTLD_NEXT, #name);            \
        if (inside) slow_down();                              \
        rc = real(fd);                                        \
        if (rc == 0 && inside) record_durable(&st);           \
        return rc;                                            \
    }
SYNC(fsync)
SYNC(fdatasync)

ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    if (full(fd)) { errno = ENOSPC; return -1; }
    return real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) real = dlsym(RTLD_NEXT, "writev");
    if (full(fd)) { errno = ENOSPC; return -1; }
    return real(fd, parts, count);
}
