package capi

/*
#cgo noescape ottla_batch_export
#cgo nocallback ottla_batch_export
#cgo noescape ottla_batch_describe
#cgo nocallback ottla_batch_describe
#include <stdlib.h>
#include "library.h"
*/
import "C"

import (
	"sync"
	"unsafe"
)

// Values of Start: ottla_start.
const (
	StartDefault   = int32(C.OTTLA_START_DEFAULT)
	StartEarliest  = int32(C.OTTLA_START_EARLIEST)
	StartLatest    = int32(C.OTTLA_START_LATEST)
	StartOffset    = int32(C.OTTLA_START_OFFSET)
	StartTimestamp = int32(C.OTTLA_START_TIMESTAMP)
)

// Assignment is a partition to read: ottla_assignment.
type Assignment struct {
	Topic            string
	Partition, Start int32
	StartValue       int64
}

// ConsumerOptions are ottla_consumer_options; zero is always the default.
type ConsumerOptions struct {
	Topics                                             []string
	Assignments                                        []Assignment
	Start                                              int32
	StartValue, MaxWaitMs                              int64
	MinBytes, MaxBytes, MaxPartitionBytes, BufferBytes int
	Tag                                                uint64
}

// Consumer is an ottla_consumer. Calls from several goroutines follow one another.
type Consumer struct {
	mu sync.RWMutex
	h  *C.ottla_consumer
}

// NewConsumer makes a consumer.
func (c *Client) NewConsumer(o ConsumerOptions) (*Consumer, *Failure) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h == nil {
		return nil, closed("client")
	}
	var owned []unsafe.Pointer
	defer func() {
		for _, p := range owned {
			C.free(p)
		}
	}()
	text := func(s string) *C.char {
		t := C.CString(s)
		owned = append(owned, unsafe.Pointer(t))
		return t
	}
	options := C.ottla_consumer_options{
		size:                C.size_t(unsafe.Sizeof(C.ottla_consumer_options{})),
		start_value:         C.int64_t(o.StartValue),
		start:               C.int32_t(o.Start),
		max_wait_ms:         C.int64_t(o.MaxWaitMs),
		min_bytes:           clampSize(o.MinBytes),
		max_bytes:           clampSize(o.MaxBytes),
		max_partition_bytes: clampSize(o.MaxPartitionBytes),
		buffer_memory:       clampSize(o.BufferBytes),
		tag:                 C.uint64_t(o.Tag),
	}
	// Arrays of pointers have to be in C's memory: Go may not lend memory that holds pointers to
	// its own.
	if n := len(o.Topics); n > 0 {
		array := C.malloc(C.size_t(n) * C.size_t(unsafe.Sizeof((*C.char)(nil))))
		owned = append(owned, array)
		names := unsafe.Slice((**C.char)(array), n)
		for i, topic := range o.Topics {
			names[i] = text(topic)
		}
		options.topics, options.topic_count = (**C.char)(array), C.size_t(n)
	}
	if n := len(o.Assignments); n > 0 {
		array := C.malloc(C.size_t(n) * C.size_t(unsafe.Sizeof(C.ottla_assignment{})))
		owned = append(owned, array)
		list := unsafe.Slice((*C.ottla_assignment)(array), n)
		for i, a := range o.Assignments {
			list[i] = C.ottla_assignment{
				topic:       text(a.Topic),
				partition:   C.int32_t(a.Partition),
				start:       C.int32_t(a.Start),
				start_value: C.int64_t(a.StartValue),
			}
		}
		options.assignments, options.assignment_count = (*C.ottla_assignment)(array), C.size_t(n)
	}
	var h *C.ottla_consumer
	var e *C.ottla_error
	if f := outcome(C.ottla_consumer_new(c.h, &options, &h, &e), e); f != nil {
		return nil, f
	}
	return &Consumer{h: h}, nil
}

// Index is where a record's parts are in a batch's arena: ottla_record_index, field by field.
type Index struct {
	Offset, TimestampMs int64
	KeyAt               uint32
	KeyLen              int32
	ValueAt             uint32
	ValueLen            int32
	HeadersAt           uint32
	HeaderCount         uint32
}

// C fills it as it is: this does not compile if a field is somewhere else.
var (
	_ [unsafe.Sizeof(Index{})]struct{}               = [unsafe.Sizeof(C.ottla_record_index{})]struct{}{}
	_ [unsafe.Offsetof(Index{}.TimestampMs)]struct{} = [unsafe.Offsetof(C.ottla_record_index{}.timestamp_ms)]struct{}{}
	_ [unsafe.Offsetof(Index{}.KeyAt)]struct{}       = [unsafe.Offsetof(C.ottla_record_index{}.key_at)]struct{}{}
	_ [unsafe.Offsetof(Index{}.KeyLen)]struct{}      = [unsafe.Offsetof(C.ottla_record_index{}.key_len)]struct{}{}
	_ [unsafe.Offsetof(Index{}.ValueAt)]struct{}     = [unsafe.Offsetof(C.ottla_record_index{}.value_at)]struct{}{}
	_ [unsafe.Offsetof(Index{}.ValueLen)]struct{}    = [unsafe.Offsetof(C.ottla_record_index{}.value_len)]struct{}{}
	_ [unsafe.Offsetof(Index{}.HeadersAt)]struct{}   = [unsafe.Offsetof(C.ottla_record_index{}.headers_at)]struct{}{}
	_ [unsafe.Offsetof(Index{}.HeaderCount)]struct{} = [unsafe.Offsetof(C.ottla_record_index{}.header_count)]struct{}{}
)

// Batch is a batch copied out of the library: one arena, places in it.
type Batch struct {
	Topic      string
	Partition  int32
	NextOffset int64
	Arena      []byte
	Index      []Index
}

// TryNext gives the next batch, nil if there is none now; then a ConsumerReady completion comes
// when it is worth asking again.
func (c *Consumer) TryNext() (*Batch, *Failure) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h == nil {
		return nil, closed("consumer")
	}
	var batch *C.ottla_batch
	var e *C.ottla_error
	if f := outcome(C.ottla_consumer_try_next(c.h, &batch, &e), e); f != nil {
		return nil, f
	}
	if batch == nil {
		return nil, nil
	}
	defer C.ottla_batch_free(batch)
	var info C.ottla_batch_info
	if f := outcome(C.ottla_batch_describe(batch, &info, &e), e); f != nil {
		return nil, f
	}
	out := &Batch{
		Topic:      C.GoStringN(info.topic, C.int(info.topic_len)),
		Partition:  int32(info.partition),
		NextOffset: int64(info.next_offset),
		// Never empty, so that an empty key or value has somewhere to point: nil means null.
		Arena: make([]byte, max(1, int(info.arena_len))),
	}
	if info.record_count == 0 {
		return out, nil
	}
	out.Index = make([]Index, info.record_count)
	status := C.ottla_batch_export(
		batch,
		(*C.uint8_t)(unsafe.Pointer(&out.Arena[0])),
		C.size_t(len(out.Arena)),
		(*C.ottla_record_index)(unsafe.Pointer(&out.Index[0])),
		info.record_count,
		&e,
	)
	if f := outcome(status, e); f != nil {
		return nil, f
	}
	return out, nil
}

// Seek goes on elsewhere in a partition that is read.
func (c *Consumer) Seek(topic string, partition, start int32, value int64) *Failure {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h == nil {
		return closed("consumer")
	}
	name := C.CString(topic)
	defer C.free(unsafe.Pointer(name))
	var e *C.ottla_error
	status := C.ottla_consumer_seek(c.h, name, C.int32_t(partition), C.int32_t(start), C.int64_t(value), &e)
	return outcome(status, e)
}

// Position is the offset of the next record to be handed out, -1 if it is not known.
func (c *Consumer) Position(topic string, partition int32) (int64, *Failure) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h == nil {
		return -1, closed("consumer")
	}
	name := C.CString(topic)
	defer C.free(unsafe.Pointer(name))
	var e *C.ottla_error
	var offset C.int64_t
	f := outcome(C.ottla_consumer_position(c.h, name, C.int32_t(partition), &offset, &e), e)
	return int64(offset), f
}

// Close stops fetching; later calls are refused. Closing again does nothing.
func (c *Consumer) Close() {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h != nil {
		var e *C.ottla_error
		_ = outcome(C.ottla_consumer_close(c.h, &e), e)
	}
}

// Free frees the handle. Freeing again does nothing.
func (c *Consumer) Free() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.h != nil {
		C.ottla_consumer_free(c.h)
		c.h = nil
	}
}
