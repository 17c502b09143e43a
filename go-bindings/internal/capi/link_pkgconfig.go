//go:build ottla_pkgconfig

package capi

// With `-tags ottla_pkgconfig`: an installed library, found by pkg-config.

// #cgo pkg-config: ottla
// #cgo CFLAGS: -DOTTLA_PKGCONFIG
import "C"
