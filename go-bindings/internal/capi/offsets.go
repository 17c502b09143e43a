package capi

/*
#include "library.h"
*/
import "C"

// Offsets are the results of a lookup, for one goroutine: ottla_offsets.
type Offsets struct{ h *C.ottla_offsets }

// ListOffsets looks up offsets; the results are there when an OffsetsListed completion has come, if it gives no failure.
func (c *Client) ListOffsets(list []Assignment, tag uint64) (*Offsets, *Failure) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h == nil {
		return nil, closed("client")
	}
	var m memory
	defer func() { m.free() }()
	var h *C.ottla_offsets
	var e *C.ottla_error
	status := C.ottla_list_offsets(c.h, m.assignments(list), C.size_t(len(list)), C.uint64_t(tag), &h, &e)
	if f := outcome(status, e); f != nil {
		return nil, f
	}
	return &Offsets{h}, nil
}

// At is result number i, in the order in which they were asked for.
func (o *Offsets) At(i int) (int64, *Failure) {
	var offset C.int64_t
	var e *C.ottla_error
	f := outcome(C.ottla_offsets_at(o.h, C.size_t(i), &offset, &e), e)
	return int64(offset), f
}

// Free frees them.
func (o *Offsets) Free() {
	C.ottla_offsets_free(o.h)
	o.h = nil
}
