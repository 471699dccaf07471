// Two calls of the C library that Swift's Glibc module does not offer, for the program that starts recordings.

#ifndef RECORDING_HOST_H
#define RECORDING_HOST_H

#include <stdbool.h>

/// Whether the file carries capabilities (then the dynamic linker preloads nothing into it).
bool hs_host_has_capabilities(const char *path);

/// The path of the program or shared library that this code was linked into, or NULL.
const char *hs_host_image_path(void);

#endif
