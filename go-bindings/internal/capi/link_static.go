//go:build !ottla_pkgconfig

package capi

// The default: the static library of this workspace, so that a test binary needs nothing at run
// time. Nothing links from anywhere but the dist folder.

// #cgo CFLAGS: -I${SRCDIR}/../../../target/ottla-dist/include
// #cgo LDFLAGS: ${SRCDIR}/../../../target/ottla-dist/lib/libottla.a
// #cgo linux LDFLAGS: -lm -ldl -lpthread
// #cgo darwin LDFLAGS: -framework Security -framework CoreFoundation
// #include "library.h"
import "C"

// Archive names what `cargo xtask dist` has laid out: with another one this package is another, and what it is linked into is
// linked anew.
const Archive = C.OTTLA_ARCHIVE
