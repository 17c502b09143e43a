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

// TestBrokerOptions are ottla_test_broker_options; zero is always the default.
type TestBrokerOptions struct {
	Brokers                 int32
	Racks                   []string
	TLS, ClientCertificates bool
	Users, ACLs             []Property
	// Mechanisms are separated by commas.
	Mechanisms string
}

func flag(set bool) C.int32_t {
	if set {
		return 1
	}
	return 0
}

// NewTestBroker starts one.
func NewTestBroker(o TestBrokerOptions) (*TestBroker, *Failure) {
	var m memory
	defer func() { m.free() }()
	racks := (**C.char)(m.array(len(o.Racks), unsafe.Sizeof((*C.char)(nil))))
	for i, rack := range o.Racks {
		unsafe.Slice(racks, len(o.Racks))[i] = m.text(rack)
	}
	options := C.ottla_test_broker_options{
		size:                C.size_t(unsafe.Sizeof(C.ottla_test_broker_options{})),
		brokers:             C.int32_t(o.Brokers),
		racks:               racks,
		rack_count:          C.size_t(len(o.Racks)),
		users:               m.properties(o.Users),
		user_count:          C.size_t(len(o.Users)),
		acls:                m.properties(o.ACLs),
		acl_count:           C.size_t(len(o.ACLs)),
		mechanisms:          m.option(o.Mechanisms),
		tls:                 flag(o.TLS),
		client_certificates: flag(o.ClientCertificates),
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

// CA is the certificate of its authority, in PEM; "" without TLS and after Free.
func (b *TestBroker) CA() string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.h == nil {
		return ""
	}
	return C.GoString(C.ottla_test_broker_ca(b.h))
}

// ClientIdentity makes a certificate and its key, in PEM.
func (b *TestBroker) ClientIdentity(name string) (certificate, key string, _ *Failure) {
	var m memory
	defer func() { m.free() }()
	var c, k *C.char
	f := b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_client_identity(h, m.text(name), &c, &k, e)
	})
	if f != nil {
		return "", "", f
	}
	defer C.ottla_string_free(c)
	defer C.ottla_string_free(k)
	return C.GoString(c), C.GoString(k), nil
}

// SetUser adds a user, or changes a password.
func (b *TestBroker) SetUser(name, password string) *Failure {
	var m memory
	defer func() { m.free() }()
	return b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_set_user(h, m.text(name), m.text(password), e)
	})
}

// Logins are how many began, and how many of them were right.
func (b *TestBroker) Logins() (begun, succeeded uint64, _ *Failure) {
	var all, right C.uint64_t
	f := b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_logins(h, &all, &right, e)
	})
	return uint64(all), uint64(right), f
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

// Do has the cluster do what a command in JSON says; the answer is JSON.
func (b *TestBroker) Do(command string) (string, *Failure) {
	var m memory
	defer func() { m.free() }()
	var answer *C.char
	f := b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_do(h, m.text(command), &answer, e)
	})
	if f != nil {
		return "", f
	}
	defer C.ottla_string_free(answer)
	return C.GoString(answer), nil
}
