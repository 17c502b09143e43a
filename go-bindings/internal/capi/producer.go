package capi

/*
#cgo noescape ottla_producer_send_packed
#cgo nocallback ottla_producer_send_packed
#include <stdlib.h>
#include "library.h"
*/
import "C"

import (
	"runtime"
	"sync"
	"unsafe"
)

// Values of Compression: ottla_compression.
const (
	CompressionNone   = int32(C.OTTLA_COMPRESSION_NONE)
	CompressionLz4    = int32(C.OTTLA_COMPRESSION_LZ4)
	CompressionGzip   = int32(C.OTTLA_COMPRESSION_GZIP)
	CompressionSnappy = int32(C.OTTLA_COMPRESSION_SNAPPY)
	CompressionZstd   = int32(C.OTTLA_COMPRESSION_ZSTD)
)

// Values of Partitioner: ottla_partitioner.
const (
	PartitionerSpread  = int32(C.OTTLA_PARTITIONER_SPREAD)
	PartitionerKeyHash = int32(C.OTTLA_PARTITIONER_KEY_HASH)
)

// Values of Acks: ottla_acks.
const (
	AcksAll    = int32(C.OTTLA_ACKS_ALL)
	AcksLeader = int32(C.OTTLA_ACKS_LEADER)
	AcksNone   = int32(C.OTTLA_ACKS_NONE)
)

// Values of InDoubt: ottla_in_doubt.
const (
	InDoubtWait    = int32(C.OTTLA_IN_DOUBT_WAIT)
	InDoubtReroute = int32(C.OTTLA_IN_DOUBT_REROUTE)
)

// TopicCompression is the codec of one topic: ottla_topic_compression.
type TopicCompression struct {
	Topic              string
	Compression, Level int32
}

// ProducerOptions are ottla_producer_options; zero is always the default.
type ProducerOptions struct {
	LingerMs, DeliveryTimeoutMs            int64
	BatchSize, BufferMemory, MaxRecordSize int
	Compression, CompressionLevel          int32
	TopicCompressions                      []TopicCompression
	Partitioner, Acks, InDoubt             int32
	Tag                                    uint64
}

// Producer is an ottla_producer, usable from many goroutines at once.
type Producer struct {
	mu sync.RWMutex
	h  *C.ottla_producer
}

// TopicName is a topic's name as C reads it, made once per topic.
type TopicName []byte

// NewTopicName appends the NUL; name has none.
func NewTopicName(name string) TopicName {
	return append([]byte(name), 0)
}

// NewProducer makes a producer.
func (c *Client) NewProducer(o ProducerOptions) (*Producer, *Failure) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h == nil {
		return nil, closed("client")
	}
	options := C.ottla_producer_options{
		size:                C.size_t(unsafe.Sizeof(C.ottla_producer_options{})),
		linger_ms:           C.int64_t(o.LingerMs),
		delivery_timeout_ms: C.int64_t(o.DeliveryTimeoutMs),
		batch_size:          clampSize(o.BatchSize),
		buffer_memory:       clampSize(o.BufferMemory),
		max_record_size:     clampSize(o.MaxRecordSize),
		compression:         C.int32_t(o.Compression),
		compression_level:   C.int32_t(o.CompressionLevel),
		partitioner:         C.int32_t(o.Partitioner),
		acks:                C.int32_t(o.Acks),
		in_doubt:            C.int32_t(o.InDoubt),
		tag:                 C.uint64_t(o.Tag),
	}
	if n := len(o.TopicCompressions); n > 0 {
		// In C's memory, as it holds pointers.
		array := C.malloc(C.size_t(n) * C.size_t(unsafe.Sizeof(C.ottla_topic_compression{})))
		defer C.free(array)
		list := unsafe.Slice((*C.ottla_topic_compression)(array), n)
		for i, t := range o.TopicCompressions {
			topic := C.CString(t.Topic)
			defer C.free(unsafe.Pointer(topic))
			list[i] = C.ottla_topic_compression{
				topic:             topic,
				compression:       C.int32_t(t.Compression),
				compression_level: C.int32_t(t.Level),
			}
		}
		options.topic_compressions = (*C.ottla_topic_compression)(array)
		options.topic_compression_count = C.size_t(n)
	}
	var h *C.ottla_producer
	var e *C.ottla_error
	if f := outcome(C.ottla_producer_new(c.h, &options, &h, &e), e); f != nil {
		return nil, f
	}
	return &Producer{h: h}, nil
}

// Send submits count records in the packed form. The first accepted of them are on their way, a
// failure says why the next one is not. Keeps nothing of packed.
func (p *Producer) Send(topic TopicName, packed []byte, count int, tag uint64) (accepted int, _ *Failure) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.h == nil {
		return 0, closed("producer")
	}
	var taken C.size_t
	var e *C.ottla_error
	status := C.ottla_producer_send_packed(
		p.h,
		(*C.char)(unsafe.Pointer(unsafe.SliceData(topic))),
		(*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(packed))),
		C.size_t(len(packed)),
		C.size_t(count),
		C.uint64_t(tag),
		&taken,
		&e,
	)
	runtime.KeepAlive(topic)
	runtime.KeepAlive(packed)
	if status == C.OTTLA_STATUS_OK && e == nil {
		return int(taken), nil
	}
	return int(taken), outcome(status, e)
}

// Flush asks for a Flushed completion once everything accepted is resolved.
func (p *Producer) Flush(tag uint64) *Failure {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.h == nil {
		return closed("producer")
	}
	var e *C.ottla_error
	return outcome(C.ottla_producer_flush(p.h, C.uint64_t(tag), &e), e)
}

// Close takes no more records; ends in a Closed completion if it gives nil.
func (p *Producer) Close(timeoutMs, tag uint64) *Failure {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.h == nil {
		return closed("producer")
	}
	var e *C.ottla_error
	return outcome(C.ottla_producer_close(p.h, C.uint64_t(timeoutMs), C.uint64_t(tag), &e), e)
}

// Free frees the handle. Freeing again does nothing.
func (p *Producer) Free() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.h != nil {
		C.ottla_producer_free(p.h)
		p.h = nil
	}
}
