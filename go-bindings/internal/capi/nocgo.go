//go:build unix && !cgo

package capi

// Every other file here imports "C" and is left out of a build without cgo: all that Go would say then
// is that constraints exclude them. This file has the compiler say what to do, and does not compile on
// purpose. Go turns cgo off by itself where it finds no C compiler, and for other platforms than its own.
const _ int = "Ottla for Go calls a C library and this build has no cgo: install a C compiler for the target platform and build with CGO_ENABLED=1 (and CC naming that compiler, for another platform than this one)"
