// C++'s operator new and delete.
//
// In libstdc++ they call malloc, which we stand before anyway. Allocators that bring operators of their own (jemalloc,
// tcmalloc) reach their insides directly, and a C++ program over them would go unseen. So we stand before these too: an
// allocation is a malloc, a deallocation is a free, and when memory is short the next operator decides what happens
// (a new-handler, an exception), as it would without us.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

static void *fail(const char *name, size_t bytes) {
  void *(*following)(size_t) = (void *(*)(size_t))dlsym(RTLD_NEXT, name);
  if (!following) abort();
  return following(bytes);
}

static void *fail_aligned(const char *name, size_t bytes, size_t alignment) {
  void *(*following)(size_t, size_t) = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, name);
  if (!following) abort();
  return following(bytes, alignment);
}

static inline size_t some(size_t bytes) { return bytes ? bytes : 1; }

#define NEW(name)                                \
  EXPORT void *name(size_t bytes) {              \
    void *p = malloc(some(bytes));               \
    return p ? p : fail(#name, bytes);           \
  }
#define NEW_ALIGNED(name)                                        \
  EXPORT void *name(size_t bytes, size_t alignment) {            \
    void *p = memalign(alignment, some(bytes));                  \
    return p ? p : fail_aligned(#name, bytes, alignment);        \
  }
extern void *memalign(size_t, size_t);

NEW(_Znwm)
NEW(_Znam)
NEW_ALIGNED(_ZnwmSt11align_val_t)
NEW_ALIGNED(_ZnamSt11align_val_t)

// The nothrow forms return null; a new-handler is not asked, as none of the programs that set one use them to free memory.
EXPORT void *_ZnwmRKSt9nothrow_t(size_t bytes, const void *tag) { return (void)tag, malloc(some(bytes)); }
EXPORT void *_ZnamRKSt9nothrow_t(size_t bytes, const void *tag) { return (void)tag, malloc(some(bytes)); }
EXPORT void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t bytes, size_t alignment, const void *tag) {
  return (void)tag, memalign(alignment, some(bytes));
}
EXPORT void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t bytes, size_t alignment, const void *tag) {
  return (void)tag, memalign(alignment, some(bytes));
}

EXPORT void _ZdlPv(void *p) { free(p); }
EXPORT void _ZdaPv(void *p) { free(p); }
EXPORT void _ZdlPvm(void *p, size_t bytes) { (void)bytes, free(p); }
EXPORT void _ZdaPvm(void *p, size_t bytes) { (void)bytes, free(p); }
EXPORT void _ZdlPvSt11align_val_t(void *p, size_t alignment) { (void)alignment, free(p); }
EXPORT void _ZdaPvSt11align_val_t(void *p, size_t alignment) { (void)alignment, free(p); }
EXPORT void _ZdlPvmSt11align_val_t(void *p, size_t bytes, size_t alignment) { (void)bytes, (void)alignment, free(p); }
EXPORT void _ZdaPvmSt11align_val_t(void *p, size_t bytes, size_t alignment) { (void)bytes, (void)alignment, free(p); }
EXPORT void _ZdlPvRKSt9nothrow_t(void *p, const void *tag) { (void)tag, free(p); }
EXPORT void _ZdaPvRKSt9nothrow_t(void *p, const void *tag) { (void)tag, free(p); }
EXPORT void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t alignment, const void *tag) {
  (void)alignment, (void)tag, free(p);
}
EXPORT void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, size_t alignment, const void *tag) {
  (void)alignment, (void)tag, free(p);
}
