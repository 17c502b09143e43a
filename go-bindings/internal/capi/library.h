/* The C library's header, or one sentence that says where it comes from; and which archive of the workspace is linked. */
#if defined(__has_include)
#if !__has_include(<ottla.h>)
#error "ottla.h is not there: run `cargo xtask dist` at the top of the Ottla workspace, or install the C library and build with -tags ottla_pkgconfig"
#endif
/* `cargo xtask dist` writes it. Go builds anew what a header in this folder changes, and does not look at archives. */
#if __has_include("archive.h")
#include "archive.h"
#endif
#endif
#ifndef OTTLA_ARCHIVE
#define OTTLA_ARCHIVE ""
#endif
#include <ottla.h>
