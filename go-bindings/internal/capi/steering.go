package capi

/*
#include "library.h"
*/
import "C"

import "runtime"

// Partition is an ottla_partition.
type Partition struct {
	Topic     string
	Partition int32
}

// End is an ottla_partition_offset: where a partition is read up to.
type End struct {
	Partition
	Offset int64
}

// Standing is whether what is left of a batch is still wanted: ottla_standing.
type Standing int32

// The values of Standing; what is none of these is Left.
const (
	Current = Standing(C.OTTLA_STANDING_CURRENT)
	Paused  = Standing(C.OTTLA_STANDING_PAUSED)
	Left    = Standing(C.OTTLA_STANDING_LEFT)
)

// Wanted is an ottla_wanted: it tells whether a batch is still wanted when that is freed, and goes with the last
// reference to it.
type Wanted struct {
	h      *C.ottla_wanted
	shared shared
}

func wanted(batch *C.ottla_batch) (*Wanted, *Failure) {
	var h *C.ottla_wanted
	var e *C.ottla_error
	if f := outcome(C.ottla_batch_wanted(batch, &h, &e), e); f != nil {
		return nil, f
	}
	words, f := share(h)
	if f != nil {
		C.ottla_wanted_free(h)
		return nil, f
	}
	w := &Wanted{h, words}
	runtime.AddCleanup(w, func(h *C.ottla_wanted) { C.ottla_wanted_free(h) }, h)
	return w, nil
}

// Pause hands out nothing of these partitions until they are resumed.
func (c *Consumer) Pause(list []Partition) *Failure {
	return c.steer(list, func(list *C.ottla_partition, n C.size_t, e **C.ottla_error) C.ottla_status {
		return C.ottla_consumer_pause(c.h, list, n, e)
	})
}

// Resume hands these partitions out again.
func (c *Consumer) Resume(list []Partition) *Failure {
	return c.steer(list, func(list *C.ottla_partition, n C.size_t, e **C.ottla_error) C.ottla_status {
		return C.ottla_consumer_resume(c.h, list, n, e)
	})
}

// Unassign reads these partitions no more.
func (c *Consumer) Unassign(list []Partition) *Failure {
	return c.steer(list, func(list *C.ottla_partition, n C.size_t, e **C.ottla_error) C.ottla_status {
		return C.ottla_consumer_unassign(c.h, list, n, e)
	})
}

func (c *Consumer) steer(list []Partition, call func(*C.ottla_partition, C.size_t, **C.ottla_error) C.ottla_status) *Failure {
	if !c.Use() {
		return closed("consumer")
	}
	defer c.Done()
	var m memory
	defer func() { m.free() }()
	var e *C.ottla_error
	status := call(m.partitions(list), C.size_t(len(list)), &e)
	return outcome(status, e)
}

// Assign reads these partitions, too.
func (c *Consumer) Assign(list []Assignment) *Failure {
	if !c.Use() {
		return closed("consumer")
	}
	defer c.Done()
	var m memory
	defer func() { m.free() }()
	var e *C.ottla_error
	status := C.ottla_consumer_assign(c.h, m.assignments(list), C.size_t(len(list)), &e)
	return outcome(status, e)
}

// Paused are the partitions that are paused.
func (c *Consumer) Paused() ([]Partition, *Failure) {
	return c.list(func(list **C.ottla_partitions, e **C.ottla_error) C.ottla_status {
		return C.ottla_consumer_paused(c.h, list, e)
	})
}

// Assignment are the partitions that are read.
func (c *Consumer) Assignment() ([]Partition, *Failure) {
	return c.list(func(list **C.ottla_partitions, e **C.ottla_error) C.ottla_status {
		return C.ottla_consumer_assignment(c.h, list, e)
	})
}

func (c *Consumer) list(call func(**C.ottla_partitions, **C.ottla_error) C.ottla_status) ([]Partition, *Failure) {
	if !c.Use() {
		return nil, closed("consumer")
	}
	defer c.Done()
	var list *C.ottla_partitions
	var e *C.ottla_error
	if f := outcome(call(&list, &e), e); f != nil {
		return nil, f
	}
	defer C.ottla_partitions_free(list)
	return listed(list)
}

func listed(list *C.ottla_partitions) ([]Partition, *Failure) {
	var e *C.ottla_error
	out := make([]Partition, C.ottla_partitions_len(list))
	for i := range out {
		var at C.ottla_partition
		if f := outcome(C.ottla_partitions_at(list, C.size_t(i), &at, &e), e); f != nil {
			return nil, f
		}
		out[i] = Partition{Topic: C.GoString(at.topic), Partition: int32(at.partition)}
	}
	return out, nil
}
