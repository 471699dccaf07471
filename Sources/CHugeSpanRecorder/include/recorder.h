// The interposed half of the recorder offers nothing but the symbols that it stands before (see recorder.c).

#ifndef RECORDER_H
#define RECORDER_H

#include "log_writer.h"

#endif
