// Package capi is the only package that imports "C": it owns the handles of the C library, keeps
// them from being used after they are freed, and copies whatever has to outlive a call.
//
// The library never calls back into Go. What finishes is a Completion, found by Poll when the
// wake file is readable.
package capi

/*
#cgo noescape ottla_poll
#cgo nocallback ottla_poll
#include <stdlib.h>
#include "library.h"
*/
import "C"

import (
	"math"
	"os"
	"runtime"
	"sync"
	"unsafe"
)

// Kinds of completions: ottla_completion_kind.
const (
	Delivery      = int32(C.OTTLA_COMPLETION_DELIVERY)
	Connected     = int32(C.OTTLA_COMPLETION_CONNECTED)
	Flushed       = int32(C.OTTLA_COMPLETION_FLUSHED)
	Closed        = int32(C.OTTLA_COMPLETION_CLOSED)
	ConsumerReady = int32(C.OTTLA_COMPLETION_CONSUMER_READY)
	TopicCreated  = int32(C.OTTLA_COMPLETION_TOPIC_CREATED)
	Space         = int32(C.OTTLA_COMPLETION_SPACE)
	OffsetsListed = int32(C.OTTLA_COMPLETION_OFFSETS_LISTED)
	Committed     = int32(C.OTTLA_COMPLETION_COMMITTED)
)

// pollAtOnce is how many completions cross in one call: enough that the crossing costs nothing
// per completion, small enough (14 KiB) to stay in the cache.
const pollAtOnce = 256

// Completion is one thing that finished; see ottla_completion.
type Completion struct {
	Tag                 uint64
	Offset, TimestampMs int64
	// Failure is nil for success.
	Failure         *Failure
	Kind, Partition int32
	First, Count    uint32
}

// Values of OnClusterChange: ottla_cluster_change.
const (
	ClusterChangeFail   = int32(C.OTTLA_CLUSTER_CHANGE_FAIL)
	ClusterChangeAccept = int32(C.OTTLA_CLUSTER_CHANGE_ACCEPT)
)

// ClientOptions are ottla_client_options; zero is always the default.
type ClientOptions struct {
	Bootstrap, ClientID, SoftwareName, SoftwareVersion, Rack string
	ConnectTimeoutMs, RequestTimeoutMs, IdleTimeoutMs        int64
	OrdinalIndex, OrdinalCount                               uint32
	OnClusterChange                                          int32
	Tag                                                      uint64
	// TLS and SASL are nil for what Properties say, and for none.
	TLS        *TLSOptions
	SASL       *SASLOptions
	Properties []Property
}

// Client is an ottla_client. Its methods may be called from many goroutines, except Poll.
type Client struct {
	// Shared by every call, taken whole by Free: no call is under way when the handle goes.
	mu  sync.RWMutex
	h   *C.ottla_client
	raw []C.ottla_completion
}

// NewClient starts a client; a Connected completion tells whether a broker was reached.
func NewClient(o ClientOptions) (*Client, *Failure) {
	var m memory
	defer func() { m.free() }()
	options := C.ottla_client_options{
		size:               C.size_t(unsafe.Sizeof(C.ottla_client_options{})),
		bootstrap:          m.text(o.Bootstrap),
		client_id:          m.option(o.ClientID),
		software_name:      m.option(o.SoftwareName),
		software_version:   m.option(o.SoftwareVersion),
		connect_timeout_ms: C.int64_t(o.ConnectTimeoutMs),
		request_timeout_ms: C.int64_t(o.RequestTimeoutMs),
		tag:                C.uint64_t(o.Tag),
		rack:               m.option(o.Rack),
		idle_timeout_ms:    C.int64_t(o.IdleTimeoutMs),
		ordinal_index:      C.uint32_t(o.OrdinalIndex),
		ordinal_count:      C.uint32_t(o.OrdinalCount),
		on_cluster_change:  C.int32_t(o.OnClusterChange),
		tls:                m.tls(o.TLS),
		sasl:               m.sasl(o.SASL),
		properties:         m.properties(o.Properties),
		property_count:     C.size_t(len(o.Properties)),
	}
	var h *C.ottla_client
	var e *C.ottla_error
	f := outcome(C.ottla_client_new(&options, &h, &e), e)
	// A provider that only these options refer to is not freed before.
	runtime.KeepAlive(o)
	if f != nil {
		return nil, f
	}
	return wrap(h), nil
}

// NewEcho makes a client without a broker, for tests.
func NewEcho() (*Client, *Failure) {
	var h *C.ottla_client
	var e *C.ottla_error
	if f := outcome(C.ottla_client_new_echo(&h, &e), e); f != nil {
		return nil, f
	}
	return wrap(h), nil
}

func wrap(h *C.ottla_client) *Client {
	return &Client{h: h, raw: make([]C.ottla_completion, pollAtOnce)}
}

// WakeFile gives a file that is readable while completions wait. It is the caller's to close, and
// known to the runtime's poller: a goroutine that reads it parks no thread.
func (c *Client) WakeFile() (*os.File, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h == nil {
		return nil, os.ErrClosed
	}
	return wakeFile(int(C.ottla_client_fd(c.h)), "ottla-wake")
}

// Poll takes completions, oldest first, and hands them to each. It never waits; the result is
// how many there were, and whether the client is closed and none will come any more. One goroutine
// at a time.
func (c *Client) Poll(each func(*Completion)) (n int, ended bool) {
	c.mu.RLock()
	if c.h == nil {
		c.mu.RUnlock()
		return 0, true
	}
	var count C.size_t
	var e *C.ottla_error
	status := C.ottla_poll(c.h, &c.raw[0], C.size_t(len(c.raw)), 0, &count, &e)
	c.mu.RUnlock()
	if f := outcome(status, e); f != nil {
		return 0, true
	}
	for i := range c.raw[:count] {
		r := &c.raw[i]
		out := Completion{
			Tag:         uint64(r.tag),
			Offset:      int64(r.offset),
			TimestampMs: int64(r.timestamp_ms),
			Kind:        int32(r.kind),
			Partition:   int32(r.partition),
			First:       uint32(r.first),
			Count:       uint32(r.count),
		}
		if r.error != nil {
			out.Failure = take(r.error)
			r.error = nil
		}
		each(&out)
	}
	return int(count), false
}

// CreateTopic asks for a topic; ends in a TopicCreated completion if it gives nil.
func (c *Client) CreateTopic(topic string, partitions int32, replication int16, tag uint64) *Failure {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h == nil {
		return closed("client")
	}
	name := C.CString(topic)
	defer C.free(unsafe.Pointer(name))
	var e *C.ottla_error
	status := C.ottla_create_topic(c.h, name, C.int32_t(partitions), C.int16_t(replication), C.uint64_t(tag), &e)
	return outcome(status, e)
}

// StatsJSON is what the handles of the client's cluster have done, as JSON.
func (c *Client) StatsJSON() (string, *Failure) {
	return c.told(func(text **C.char, e **C.ottla_error) C.ottla_status {
		return C.ottla_client_stats_json(c.h, text, e)
	})
}

// ClusterJSON is what the client knows of its cluster, as JSON.
func (c *Client) ClusterJSON() (string, *Failure) {
	return c.told(func(text **C.char, e **C.ottla_error) C.ottla_status {
		return C.ottla_client_cluster_json(c.h, text, e)
	})
}

// InTheWay is what is in the way of reaching brokers; "" if nothing is that is known.
func (c *Client) InTheWay() string {
	words, _ := c.told(func(text **C.char, e **C.ottla_error) C.ottla_status {
		return C.ottla_client_in_the_way(c.h, text, e)
	})
	return words
}

// told is a text that a call gives.
func (c *Client) told(call func(**C.char, **C.ottla_error) C.ottla_status) (string, *Failure) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h == nil {
		return "", closed("client")
	}
	var text *C.char
	var e *C.ottla_error
	if f := outcome(call(&text, &e), e); f != nil {
		return "", f
	}
	defer C.ottla_string_free(text)
	if text == nil {
		return "", nil
	}
	return C.GoString(text), nil
}

// Close ends everything outstanding; what became of it can be polled when this returns.
func (c *Client) Close() {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h != nil {
		var e *C.ottla_error
		_ = outcome(C.ottla_client_close(c.h, &e), e)
	}
}

// Free frees the handle; completions not polled are lost. Freeing again does nothing.
func (c *Client) Free() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.h != nil {
		// What was not polled may own errors, and the queue goes with the client.
		C.ottla_client_free(c.h)
		c.h = nil
	}
}

// clampSize keeps a Go int in what a size_t holds; options are checked for sign before.
func clampSize(n int) C.size_t {
	if n < 0 {
		return 0
	}
	return C.size_t(uint64(n) & math.MaxInt64)
}
