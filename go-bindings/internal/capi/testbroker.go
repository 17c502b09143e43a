package capi

/*
#include <stdlib.h>
#include "library.h"
*/
import "C"

import (
	"sync"
	"unsafe"
)

// TestBroker is an ottla_test_broker: a cluster inside this process.
type TestBroker struct {
	mu sync.RWMutex
	h  *C.ottla_test_broker
}

// NewTestBroker starts one of so many brokers, the racks given to them in turn.
func NewTestBroker(brokers int32, racks []string) (*TestBroker, *Failure) {
	options := C.ottla_test_broker_options{
		size:    C.size_t(unsafe.Sizeof(C.ottla_test_broker_options{})),
		brokers: C.int32_t(brokers),
	}
	if n := len(racks); n > 0 {
		// In C's memory, as it holds pointers.
		array := C.malloc(C.size_t(n) * C.size_t(unsafe.Sizeof((*C.char)(nil))))
		defer C.free(array)
		names := unsafe.Slice((**C.char)(array), n)
		for i, rack := range racks {
			names[i] = C.CString(rack)
			defer C.free(unsafe.Pointer(names[i]))
		}
		options.racks, options.rack_count = (**C.char)(array), C.size_t(n)
	}
	var h *C.ottla_test_broker
	var e *C.ottla_error
	if f := outcome(C.ottla_test_broker_new(&options, &h, &e), e); f != nil {
		return nil, f
	}
	return &TestBroker{h: h}, nil
}

// Bootstrap is where to reach it; "" after Free.
func (b *TestBroker) Bootstrap() string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.h == nil {
		return ""
	}
	return C.GoString(C.ottla_test_broker_bootstrap(b.h))
}

// with calls with the handle, unless it is freed.
func (b *TestBroker) with(call func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status) *Failure {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.h == nil {
		return closed("test broker")
	}
	var e *C.ottla_error
	status := call(b.h, &e)
	return outcome(status, e)
}

// CreateTopic creates a topic at once.
func (b *TestBroker) CreateTopic(topic string, partitions, replication int32) *Failure {
	name := C.CString(topic)
	defer C.free(unsafe.Pointer(name))
	return b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_create_topic(h, name, C.int32_t(partitions), C.int32_t(replication), e)
	})
}

// SetReplicaDelay is how long followers take to copy; -1: they never do.
func (b *TestBroker) SetReplicaDelay(ms int64) *Failure {
	return b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_set_replica_delay(h, C.int64_t(ms), e)
	})
}

// StopBroker stops a broker; others take over its partitions if moveLeaders.
func (b *TestBroker) StopBroker(id int32, moveLeaders bool) *Failure {
	var move C.int32_t
	if moveLeaders {
		move = 1
	}
	return b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_stop_broker(h, C.int32_t(id), move, e)
	})
}

// StartBroker starts a stopped broker again.
func (b *TestBroker) StartBroker(id int32) *Failure {
	return b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_start_broker(h, C.int32_t(id), e)
	})
}

// Replace puts another cluster, with this id, in the place of this one.
func (b *TestBroker) Replace(clusterID string) *Failure {
	id := C.CString(clusterID)
	defer C.free(unsafe.Pointer(id))
	return b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_replace(h, id, e)
	})
}

// LogEnd is the offset that the next record of a partition gets.
func (b *TestBroker) LogEnd(topic string, partition int32) (int64, *Failure) {
	name := C.CString(topic)
	defer C.free(unsafe.Pointer(name))
	var offset C.int64_t
	f := b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_log_end(h, name, C.int32_t(partition), &offset, e)
	})
	return int64(offset), f
}

// Codecs has bit 1<<c set for each ottla_compression c that occurs in a topic.
func (b *TestBroker) Codecs(topic string) (uint32, *Failure) {
	name := C.CString(topic)
	defer C.free(unsafe.Pointer(name))
	var codecs C.uint32_t
	f := b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_codecs(h, name, &codecs, e)
	})
	return uint32(codecs), f
}

// Free stops it. Freeing again does nothing.
func (b *TestBroker) Free() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.h != nil {
		C.ottla_test_broker_free(b.h)
		b.h = nil
	}
}
