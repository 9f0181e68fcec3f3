/* Records what one process does to the files of one directory, in order: data, sizes, names, syncs.

   Owns: the record of it, in the file POWER_LOG. Knows nothing of: SQLite, what becomes of the record (recording.py
   reads it, images.py says what a disk may hold after the power went).

   cc -shared -fPIC -U_FORTIFY_SOURCE -o recorder.so recorder.c -ldl -lpthread
   LD_PRELOAD=recorder.so POWER_DIRECTORY=/d POWER_LOG=/l POWER_MARKS=/m program

   Theory of operation. The functions of the C library that change files are defined here a second time. Each does its
   work through the real one and then appends a record; one mutex makes that one step, so that the order of the records
   is the order in which things happened. A sync is two records, its begin and its end, with the mutex free in between:
   what is written while the disk works is not covered by it. A failed sync has no end. Whatever is written to the file
   POWER_MARKS becomes a record too: by it the program says what it has acknowledged, at its place in the order.

   A file is known by a number that it gets when it is created and keeps when it is renamed; inode numbers would not do,
   they are used again. What cannot be recorded faithfully (a file that was there before, a shared map, a hole) becomes
   a record of its own, so that the reader can refuse. Only what goes through the C library's own functions is seen; the
   reader compares the files that lie there in the end with those that the records yield, and so finds what was not. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MOST_DESCRIPTORS = 4096, MOST_FILES = 4096 };

/* What a descriptor leads to: one of these, or the number of a file. */
enum { NOT_OURS = 0, DIRECTORY = 1, MARKS = 2, FIRST_FILE = 3 };

/* recording.Kind has the same numbers. */
enum kind { CREATE = 1, WRITE, RESIZE, UNLINK, RENAME, SYNC_BEGIN, SYNC_END, MAP, MARK, STRANGE };

struct record {
    uint64_t number;
    uint32_t kind;
    uint32_t file;
    int64_t offset; /* of a WRITE; of a RESIZE the size; of a SYNC_END the number of its SYNC_BEGIN */
    uint64_t length; /* of the bytes that follow: data, a name, or two names with a zero between */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char directory[PATH_MAX], marks[PATH_MAX];
static int log_fd = -1;
static uint64_t records;
static uint32_t leads_to[MOST_DESCRIPTORS];
static uint32_t files = FIRST_FILE;
static struct { dev_t device; ino_t inode; } identity[MOST_FILES];

/* The C library's own function behind the one that is defined here. */
#define REAL(name)                                                  \
    ({                                                              \
        static __typeof__(&name) found;                             \
        if (found == NULL)                                          \
            *(void **)&found = dlsym(RTLD_NEXT, #name);             \
        found;                                                      \
    })

static void give_up(const char *why)
{
    fprintf(stderr, "recorder: %s (%s)\n", why, strerror(errno));
    abort();
}

static void begin(void)
{
    const char *where = getenv("POWER_DIRECTORY"), *into = getenv("POWER_LOG"), *said = getenv("POWER_MARKS");
    if (where == NULL || into == NULL || said == NULL)
        return;
    if (realpath(where, directory) == NULL)
        give_up("there is no POWER_DIRECTORY");
    if (strlen(said) >= sizeof marks)
        give_up("POWER_MARKS is too long");
    strcpy(marks, said);
    log_fd = REAL(open)(into, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        give_up("POWER_LOG cannot be made; it must not exist");
    unsetenv("LD_PRELOAD"); /* one process, one log */
}

__attribute__((constructor)) static void start(void)
{
    pthread_once(&once, begin);
}

/* Take the lock; whether there is anything to do for us. */
static int enter(void)
{
    pthread_once(&once, begin);
    if (log_fd < 0)
        return 0;
    pthread_mutex_lock(&lock);
    return 1;
}

static void leave(void)
{
    pthread_mutex_unlock(&lock);
}

static uint64_t emit(enum kind kind, uint32_t file, int64_t offset, const void *data, size_t length)
{
    struct record record = {++records, kind, file, offset, length};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)data, length}};
    if (REAL(writev)(log_fd, parts, 2) != (ssize_t)(sizeof record + length))
        give_up("the log cannot be written");
    return record.number;
}

static void strange(uint32_t file, const char *what)
{
    emit(STRANGE, file, 0, what, strlen(what));
}

static uint32_t number_at(int fd)
{
    return fd >= 0 && fd < MOST_DESCRIPTORS ? leads_to[fd] : NOT_OURS;
}

/* --- names ------------------------------------------------------------------------------------------------------ */

static void true_path(int fd, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = '\0';
}

/* The name that a path has in our directory, NULL when it leads elsewhere. Nothing at its end needs to exist. */
static const char *name_in_directory(int at, const char *path)
{
    char parent[PATH_MAX], truly[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    if (length >= sizeof parent)
        return NULL;
    memcpy(parent, path, length);
    strcpy(parent + length, ".");
    int fd = REAL(openat)(at, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    true_path(fd, truly);
    REAL(close)(fd);
    return strcmp(truly, directory) == 0 ? path + length : NULL;
}

static uint32_t new_file(const struct stat *file)
{
    if (files == MOST_FILES)
        give_up("more files than can be told apart");
    identity[files].device = file->st_dev;
    identity[files].inode = file->st_ino;
    return files++;
}

/* The youngest file with that inode: an older one with the same is gone. */
static uint32_t known_file(const struct stat *file)
{
    for (uint32_t number = files - 1; number >= FIRST_FILE; number--)
        if (identity[number].device == file->st_dev && identity[number].inode == file->st_ino)
            return number;
    return NOT_OURS;
}

static uint32_t opened_file(int fd, int flags, int created, const char *name)
{
    struct stat file;
    if (fstat(fd, &file) != 0)
        give_up("an open file has no inode");
    uint32_t number = created ? NOT_OURS : known_file(&file);
    if (number == NOT_OURS) {
        number = new_file(&file);
        if (created)
            emit(CREATE, number, 0, name, strlen(name));
        else
            strange(number, "a file that existed before the recording began");
    } else if (flags & O_TRUNC) {
        emit(RESIZE, number, 0, NULL, 0);
    }
    return number;
}

static int opening(int (*real)(int, const char *, int, ...), int at, const char *path, int flags, mode_t mode)
{
    if (!enter())
        return real(at, path, flags, mode);
    struct stat before;
    int created = (flags & O_CREAT) && fstatat(at, path, &before, 0) != 0;
    int fd = real(at, path, flags, mode);
    if (fd >= 0) {
        char truly[PATH_MAX];
        true_path(fd, truly);
        const char *name = name_in_directory(AT_FDCWD, truly);
        uint32_t number = NOT_OURS;
        if (strcmp(truly, directory) == 0)
            number = DIRECTORY;
        else if (strcmp(truly, marks) == 0)
            number = MARKS;
        else if (name != NULL)
            number = opened_file(fd, flags, created, name);
        if (fd < MOST_DESCRIPTORS)
            leads_to[fd] = number;
        else if (number != NOT_OURS)
            give_up("a descriptor is too high to be followed");
    }
    leave();
    return fd;
}

/* The mode that follows the flags where they ask for one. */
#define MODE(flags)                                                 \
    ({                                                              \
        mode_t given = 0;                                           \
        if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { \
            va_list rest;                                           \
            va_start(rest, flags);                                  \
            given = va_arg(rest, mode_t);                           \
            va_end(rest);                                           \
        }                                                           \
        given;                                                      \
    })

int open(const char *path, int flags, ...)
{
    return opening(REAL(openat), AT_FDCWD, path, flags, MODE(flags));
}

int openat(int at, const char *path, int flags, ...)
{
    return opening(REAL(openat), at, path, flags, MODE(flags));
}

int creat(const char *path, mode_t mode)
{
    return opening(REAL(openat), AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

int close(int fd)
{
    if (!enter())
        return REAL(close)(fd);
    if (fd >= 0 && fd < MOST_DESCRIPTORS)
        leads_to[fd] = NOT_OURS;
    int result = REAL(close)(fd);
    leave();
    return result;
}

static int renaming(int old_at, const char *old_path, int new_at, const char *new_path, unsigned flags)
{
    if (!enter())
        return REAL(renameat2)(old_at, old_path, new_at, new_path, flags);
    const char *old_name = name_in_directory(old_at, old_path), *new_name = name_in_directory(new_at, new_path);
    int result = REAL(renameat2)(old_at, old_path, new_at, new_path, flags);
    if (result == 0 && (old_name != NULL || new_name != NULL)) {
        struct stat file;
        char both[2 * NAME_MAX + 2];
        if (old_name == NULL || new_name == NULL || flags != 0 || fstatat(new_at, new_path, &file, 0) != 0) {
            strange(DIRECTORY, "a rename across directories, or one with flags");
        } else {
            int length = snprintf(both, sizeof both, "%s%c%s", old_name, '\0', new_name);
            emit(RENAME, known_file(&file), 0, both, (size_t)length);
        }
    }
    leave();
    return result;
}

int rename(const char *old_path, const char *new_path)
{
    return renaming(AT_FDCWD, old_path, AT_FDCWD, new_path, 0);
}

int renameat(int old_at, const char *old_path, int new_at, const char *new_path)
{
    return renaming(old_at, old_path, new_at, new_path, 0);
}

int renameat2(int old_at, const char *old_path, int new_at, const char *new_path, unsigned flags)
{
    return renaming(old_at, old_path, new_at, new_path, flags);
}

int unlinkat(int at, const char *path, int flags)
{
    if (!enter())
        return REAL(unlinkat)(at, path, flags);
    const char *name = name_in_directory(at, path);
    int result = REAL(unlinkat)(at, path, flags);
    if (result == 0 && name != NULL)
        emit(UNLINK, DIRECTORY, 0, name, strlen(name));
    leave();
    return result;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

/* --- data ------------------------------------------------------------------------------------------------------- */

/* Record `done` bytes that a real function wrote at `offset`; -1: where the descriptor stands, behind them. */
static void wrote(int fd, int64_t offset, const void *data, ssize_t done)
{
    uint32_t number = number_at(fd);
    if (done <= 0 || number == NOT_OURS)
        return;
    if (number == MARKS)
        emit(MARK, number, 0, data, (size_t)done);
    else
        emit(WRITE, number, offset >= 0 ? offset : lseek(fd, 0, SEEK_CUR) - done, data, (size_t)done);
}

static void wrote_parts(int fd, int64_t offset, const struct iovec *parts, int count, ssize_t done)
{
    if (done <= 0 || number_at(fd) == NOT_OURS)
        return;
    size_t room = 0, used = 0;
    for (int part = 0; part < count; part++)
        room += parts[part].iov_len;
    char *data = malloc(room);
    if (data == NULL)
        give_up("no memory");
    for (int part = 0; part < count; used += parts[part++].iov_len)
        memcpy(data + used, parts[part].iov_base, parts[part].iov_len);
    wrote(fd, offset, data, done);
    free(data);
}

static void resized(int fd)
{
    struct stat file;
    if (fstat(fd, &file) != 0)
        give_up("an open file has no inode");
    emit(RESIZE, number_at(fd), file.st_size, NULL, 0);
}

/* Call the real function and, if somebody records, do `after` with its result under the same lock. */
#define RECORDED(type, call, after)                                 \
    do {                                                            \
        if (!enter())                                               \
            return call;                                            \
        type result = call;                                         \
        after;                                                      \
        leave();                                                    \
        return result;                                              \
    } while (0)

ssize_t write(int fd, const void *data, size_t length)
{
    RECORDED(ssize_t, REAL(write)(fd, data, length), wrote(fd, -1, data, result));
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    RECORDED(ssize_t, REAL(pwrite)(fd, data, length, offset), wrote(fd, offset, data, result));
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    RECORDED(ssize_t, REAL(writev)(fd, parts, count), wrote_parts(fd, -1, parts, count, result));
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    RECORDED(ssize_t, REAL(pwritev)(fd, parts, count, offset), wrote_parts(fd, offset, parts, count, result));
}

/* With flags pwritev2 may also append, or sync on its own: none of our programs asks for that. */
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    RECORDED(ssize_t, REAL(pwritev2)(fd, parts, count, offset, flags), {
        if (flags != 0 && number_at(fd) != NOT_OURS)
            strange(number_at(fd), "a pwritev2 with flags");
        wrote_parts(fd, offset, parts, count, result);
    });
}

int ftruncate(int fd, off_t length)
{
    RECORDED(int, REAL(ftruncate)(fd, length), if (result == 0 && number_at(fd) != NOT_OURS) resized(fd));
}

int posix_fallocate(int fd, off_t offset, off_t length)
{
    RECORDED(int, REAL(posix_fallocate)(fd, offset, length), if (result == 0 && number_at(fd) != NOT_OURS) resized(fd));
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    RECORDED(int, REAL(fallocate)(fd, mode, offset, length), if (result == 0 && number_at(fd) != NOT_OURS) {
        if (mode & ~FALLOC_FL_KEEP_SIZE)
            strange(number_at(fd), "an fallocate that moves or removes data");
        resized(fd);
    });
}

void *mmap(void *wanted, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (fd < 0)
        return REAL(mmap)(wanted, length, protection, flags, fd, offset);
    RECORDED(void *, REAL(mmap)(wanted, length, protection, flags, fd, offset), {
        int is_shared = (flags & MAP_TYPE) != MAP_PRIVATE && (protection & PROT_WRITE);
        if (result != MAP_FAILED && is_shared && number_at(fd) != NOT_OURS)
            emit(MAP, number_at(fd), offset, NULL, 0);
    });
}

/* --- syncs ------------------------------------------------------------------------------------------------------ */

/* sync_file_range is left out on purpose: it flushes no disk cache, so nobody may rely on it. */
static int syncing(int (*real)(int), int fd)
{
    if (!enter())
        return real(fd);
    uint32_t number = number_at(fd);
    uint64_t begun = number == NOT_OURS ? 0 : emit(SYNC_BEGIN, number, 0, NULL, 0);
    leave();
    int result = real(fd);
    if (begun != 0 && result == 0 && enter()) {
        emit(SYNC_END, number, (int64_t)begun, NULL, 0);
        leave();
    }
    return result;
}

int fsync(int fd)
{
    return syncing(REAL(fsync), fd);
}

int fdatasync(int fd)
{
    return syncing(REAL(fdatasync), fd);
}

/* --- the second names that glibc has for some of them ----------------------------------------------------------- */

#ifdef __GLIBC__
#if __SIZEOF_POINTER__ < 8
#error "this recorder takes off_t for off64_t, which holds on 64-bit machines only"
#endif

int __open_2(const char *path, int flags)
{
    return open(path, flags);
}

int __open64_2(const char *path, int flags)
{
    return open(path, flags);
}

int __openat_2(int at, const char *path, int flags)
{
    return openat(at, path, flags);
}

int __openat64_2(int at, const char *path, int flags)
{
    return openat(at, path, flags);
}

int open64(const char *path, int flags, ...)
{
    return opening(REAL(openat), AT_FDCWD, path, flags, MODE(flags));
}

int openat64(int at, const char *path, int flags, ...)
{
    return opening(REAL(openat), at, path, flags, MODE(flags));
}

int creat64(const char *path, mode_t mode)
{
    return creat(path, mode);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    return pwrite(fd, data, length, offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    return pwritev(fd, parts, count, offset);
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
    return pwritev2(fd, parts, count, offset, flags);
}

int ftruncate64(int fd, off64_t length)
{
    return ftruncate(fd, length);
}

int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
    return posix_fallocate(fd, offset, length);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    return fallocate(fd, mode, offset, length);
}

void *mmap64(void *wanted, size_t length, int protection, int flags, int fd, off64_t offset)
{
    return mmap(wanted, length, protection, flags, fd, offset);
}
#endif
