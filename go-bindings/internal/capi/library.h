/* The C library's header, or one sentence that says where it comes from. */
#if defined(__has_include)
#if !__has_include(<ottla.h>)
#error "ottla.h is not there: run `cargo xtask dist` at the top of the Ottla workspace, or install the C library and build with -tags ottla_pkgconfig"
#endif
#endif
#include <ottla.h>
