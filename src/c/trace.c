// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tracepoints of the system `freelist`.
 */
#include "../uapi/freelist.h"
#include "trace.h"

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "freelist_trace.h"
