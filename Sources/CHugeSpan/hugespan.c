// The header is all of it; a C target needs one translation unit.
#include "hugespan.h"
