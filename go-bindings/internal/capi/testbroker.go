package capi

/*
#include <stdlib.h>
#include <ottla.h>
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

// NewTestBroker starts one.
func NewTestBroker(brokers int32) (*TestBroker, *Failure) {
	var h *C.ottla_test_broker
	var e *C.ottla_error
	if f := outcome(C.ottla_test_broker_new(C.int32_t(brokers), &h, &e), e); f != nil {
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

// CreateTopic creates a topic at once.
func (b *TestBroker) CreateTopic(topic string, partitions, replication int32) *Failure {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.h == nil {
		return closed("test broker")
	}
	name := C.CString(topic)
	defer C.free(unsafe.Pointer(name))
	var e *C.ottla_error
	return outcome(C.ottla_test_broker_create_topic(b.h, name, C.int32_t(partitions), C.int32_t(replication), &e), e)
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
