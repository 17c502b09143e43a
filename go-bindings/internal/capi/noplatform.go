//go:build !unix

package capi

// As in nocgo.go, for platforms that have no descriptor to wait on.
const _ int = "Ottla for Go runs on Linux, macOS and other Unix systems: build for one of them"
