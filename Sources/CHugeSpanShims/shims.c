// The shims are static inline functions in the header; a C target needs one translation unit.
#include "shims.h"
