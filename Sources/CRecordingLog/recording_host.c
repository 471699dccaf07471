#define _GNU_SOURCE
#include "recording_host.h"

#include <dlfcn.h>
#include <stddef.h>
#include <sys/xattr.h>

bool hs_host_has_capabilities(const char *path) { return getxattr(path, "security.capability", NULL, 0) > 0; }

const char *hs_host_image_path(void) {
  Dl_info information;
  return dladdr((const void *)hs_host_image_path, &information) ? information.dli_fname : NULL;
}
