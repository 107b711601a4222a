/* Makes chosen calls that change files below one folder fail, as a full or broken disk would.
 *
 * Loaded by LD_PRELOAD. All processes that inherit the variable CTC_FAULTS map the file it names: they count
 * their calls together, and those numbered first to last fail. A failing write first writes half of its bytes;
 * where the error is 0, it then reports success with that half, as a system may at any time.
 * The layout of the control block is known to faults.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, SIZE = 2, SYNC = 4, RENAME = 8, CREATE = 16, REMOVE = 32 };

struct control {
    uint64_t calls;
    uint64_t first;
    uint64_t last;
    uint64_t failed;
    uint32_t kinds;
    int32_t error;
    char folder[512];
    char what[1024];
};

static struct control *control;

static void map_control(void) {
    const char *path = getenv("CTC_FAULTS");
    if (control || !path)
        return;
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int handle = real_open(path, O_RDWR | O_CLOEXEC);
    if (handle < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    control = mapped == MAP_FAILED ? NULL : mapped;
}

__attribute__((constructor)) static void start(void) { map_control(); }

/* Says whether this call, on this path, is one that shall fail; counts it if it is of the chosen ones. */
static int fails(int kind, const char *name, const char *path) {
    if (!control || !(control->kinds & kind) || !control->folder[0])
        return 0;
    size_t length = strlen(control->folder);
    if (strncmp(path, control->folder, length) || (path[length] && path[length] != '/'))
        return 0;
    uint64_t number = __atomic_add_fetch(&control->calls, 1, __ATOMIC_SEQ_CST);
    if (number < control->first || number > control->last)
        return 0;
    if (__atomic_add_fetch(&control->failed, 1, __ATOMIC_SEQ_CST) == 1)
        snprintf(control->what, sizeof control->what, "%s %s", name, path + length);
    errno = control->error;
    return 1;
}

static int fails_at(int kind, const char *name, int handle) {
    char link[64], path[PATH_MAX];
    int before = errno;
    if (!control)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(kind, name, path);
}

static int fails_named(int kind, const char *name, int folder, const char *path) {
    char link[64], whole[2 * PATH_MAX];
    int before = errno;
    if (!control || !path || path[0] == '/')
        return path ? fails(kind, name, path) : 0;
    if (folder == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, whole, PATH_MAX);
    errno = before;
    if (length < 0)
        return 0;
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return fails(kind, name, whole);
}

#define REAL(result, name, ...)                                                                                        \
    static result (*real)(__VA_ARGS__);                                                                                \
    if (!real)                                                                                                         \
        real = dlsym(RTLD_NEXT, #name);

static ssize_t torn(ssize_t written) {
    if (!control->error)
        return written;
    errno = control->error;
    return -1;
}

ssize_t write(int handle, const void *bytes, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t)
    if (fails_at(WRITE, "write", handle))
        return torn(real(handle, bytes, count > 1 ? count / 2 : count));
    return real(handle, bytes, count);
}

#define PWRITE(name, type)                                                                                             \
    ssize_t name(int handle, const void *bytes, size_t count, type offset) {                                           \
        REAL(ssize_t, name, int, const void *, size_t, type)                                                           \
        if (fails_at(WRITE, #name, handle))                                                                            \
            return torn(real(handle, bytes, count > 1 ? count / 2 : count, offset));                                   \
        return real(handle, bytes, count, offset);                                                                     \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_HANDLE(result, kind, name, declared, passed, handle, ...)                                                   \
    result name declared {                                                                                             \
        REAL(result, name, __VA_ARGS__)                                                                                \
        return fails_at(kind, #name, handle) && control->error ? -1 : real passed;                                                       \
    }
ON_HANDLE(ssize_t, WRITE, writev, (int handle, const struct iovec *parts, int count), (handle, parts, count), handle,
          int, const struct iovec *, int)
ON_HANDLE(ssize_t, WRITE, pwritev, (int handle, const struct iovec *parts, int count, off_t offset),
          (handle, parts, count, offset), handle, int, const struct iovec *, int, off_t)
ON_HANDLE(ssize_t, WRITE, sendfile, (int handle, int from, off_t *offset, size_t count), (handle, from, offset, count),
          handle, int, int, off_t *, size_t)
ON_HANDLE(ssize_t, WRITE, sendfile64, (int handle, int from, off64_t *offset, size_t count),
          (handle, from, offset, count), handle, int, int, off64_t *, size_t)
ON_HANDLE(ssize_t, WRITE, copy_file_range,
          (int from, off64_t *start, int handle, off64_t *offset, size_t count, unsigned flags),
          (from, start, handle, offset, count, flags), handle, int, off64_t *, int, off64_t *, size_t, unsigned)
ON_HANDLE(int, SIZE, ftruncate, (int handle, off_t size), (handle, size), handle, int, off_t)
ON_HANDLE(int, SIZE, ftruncate64, (int handle, off64_t size), (handle, size), handle, int, off64_t)
ON_HANDLE(int, SIZE, fallocate, (int handle, int mode, off_t offset, off_t size), (handle, mode, offset, size), handle,
          int, int, off_t, off_t)
ON_HANDLE(int, SIZE, fallocate64, (int handle, int mode, off64_t offset, off64_t size), (handle, mode, offset, size),
          handle, int, int, off64_t, off64_t)
ON_HANDLE(int, SYNC, fsync, (int handle), (handle), handle, int)
ON_HANDLE(int, SYNC, fdatasync, (int handle), (handle), handle, int)

/* posix_fallocate returns its error. */
#define POSIX_FALLOCATE(name, type)                                                                                    \
    int name(int handle, type offset, type size) {                                                                     \
        REAL(int, name, int, type, type)                                                                               \
        return fails_at(SIZE, #name, handle) ? control->error : real(handle, offset, size);                            \
    }
POSIX_FALLOCATE(posix_fallocate, off_t)
POSIX_FALLOCATE(posix_fallocate64, off64_t)

#define ON_PATH(kind, name, declared, passed, folder, path, ...)                                                       \
    int name declared {                                                                                                \
        REAL(int, name, __VA_ARGS__)                                                                                   \
        return fails_named(kind, #name, folder, path) ? -1 : real passed;                                              \
    }
ON_PATH(RENAME, rename, (const char *from, const char *to), (from, to), AT_FDCWD, to, const char *, const char *)
ON_PATH(RENAME, renameat, (int folder, const char *from, int other, const char *to), (folder, from, other, to), other,
        to, int, const char *, int, const char *)
ON_PATH(RENAME, renameat2, (int folder, const char *from, int other, const char *to, unsigned flags),
        (folder, from, other, to, flags), other, to, int, const char *, int, const char *, unsigned)
ON_PATH(CREATE, link, (const char *from, const char *to), (from, to), AT_FDCWD, to, const char *, const char *)
ON_PATH(CREATE, linkat, (int folder, const char *from, int other, const char *to, int flags),
        (folder, from, other, to, flags), other, to, int, const char *, int, const char *, int)
ON_PATH(CREATE, symlink, (const char *from, const char *to), (from, to), AT_FDCWD, to, const char *, const char *)
ON_PATH(CREATE, mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path, const char *, mode_t)
ON_PATH(CREATE, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), folder, path, int,
        const char *, mode_t)
ON_PATH(REMOVE, unlink, (const char *path), (path), AT_FDCWD, path, const char *)
ON_PATH(REMOVE, unlinkat, (int folder, const char *path, int flags), (folder, path, flags), folder, path, int,
        const char *, int)
ON_PATH(REMOVE, rmdir, (const char *path), (path), AT_FDCWD, path, const char *)

static int creates(const char *name, int folder, const char *path, int flags) {
    int before = errno;
    int there = (flags & O_CREAT) ? !faccessat(folder, path, F_OK, 0) : 1;
    errno = before;
    return !there && fails_named(CREATE, name, folder, path);
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        REAL(int, name, const char *, int, ...)                                                                        \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return creates(#name, AT_FDCWD, path, flags) ? -1 : real(path, flags, mode);                                   \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int folder, const char *path, int flags, ...) {                                                           \
        REAL(int, name, int, const char *, int, ...)                                                                   \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return creates(#name, folder, path, flags) ? -1 : real(folder, path, flags, mode);                             \
    }
OPENAT(openat)
OPENAT(openat64)
