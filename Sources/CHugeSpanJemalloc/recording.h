// The part of recording that only the adapter's C half knows.

#ifndef RECORDING_H
#define RECORDING_H

#include "log_writer.h"

/// Attaches this process to the log at `path`, if there is one and it is for this process.
void hs_adapter_start_recording(const char *path);

#endif
