// The system calls of a recorder.
//
// Past every interposed symbol: `mmap` may be one that records, and these are called while a record is being written.

#define _GNU_SOURCE
#include "log_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static long result(long value) { return value == -1 ? -(long)errno : value; }

long hs_system_open(const char *path) { return result(syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC)); }
long hs_system_close(long file) { return result(syscall(SYS_close, file)); }
long hs_system_allocate(long file, uint64_t offset, uint64_t bytes) {
  return result(syscall(SYS_fallocate, file, 0, offset, bytes));
}
long hs_system_map_file(long file, uint64_t offset, uint64_t bytes) {
  return result(syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, offset));
}
long hs_system_map_wiped_on_fork(uint64_t bytes) {
  long address = result(syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (address < 0) return address;
  long advised = result(syscall(SYS_madvise, address, bytes, MADV_WIPEONFORK));
  if (advised >= 0) return address;
  syscall(SYS_munmap, address, bytes);
  return advised;
}
long hs_system_unmap(const void *address, uint64_t bytes) { return result(syscall(SYS_munmap, address, bytes)); }
uint32_t hs_system_process(void) { return (uint32_t)syscall(SYS_getpid); }
