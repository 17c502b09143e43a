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
	"strings"
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
	Start, Isolation                                   int32
	StartValue, MaxWaitMs                              int64
	MinBytes, MaxBytes, MaxPartitionBytes, BufferBytes int
	Tag                                                uint64
	GroupOptions
}

// Consumer is an ottla_consumer, usable from many goroutines. Calls that read follow one another.
type Consumer struct {
	// mu is held for no call: one that steers, or frees, does not wait for one that reads.
	mu    sync.Mutex
	users int
	gone  bool
	h     *C.ottla_consumer

	// topic is the name of the last batch's, of the call that reads.
	topic string

	// spare are indices of batches that are gone.
	spareMu sync.Mutex
	spare   [][]Index
}

// mostSpare indices are kept: as many as there may be loops over one consumer at once, mostly.
const mostSpare = 4

// GiveBack says that nobody looks at the batch's index any more.
func (c *Consumer) GiveBack(batch *Batch) {
	index := batch.Index[:0]
	batch.Index = nil
	c.spareMu.Lock()
	defer c.spareMu.Unlock()
	if len(c.spare) < mostSpare {
		c.spare = append(c.spare, index)
	}
}

// places gives an index for so many records.
func (c *Consumer) places(n int) []Index {
	c.spareMu.Lock()
	defer c.spareMu.Unlock()
	if last := len(c.spare) - 1; last >= 0 {
		index := c.spare[last]
		c.spare = c.spare[:last]
		if n <= cap(index) {
			return index[:n]
		}
	}
	return make([]Index, n)
}

// Use keeps the handle until Done; false once it is to be freed.
func (c *Consumer) Use() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return false
	}
	c.users++
	return true
}

// Done ends a use.
func (c *Consumer) Done() {
	c.mu.Lock()
	c.users--
	c.mu.Unlock()
	c.free()
}

// free frees the handle if it is to be freed and nobody uses it.
func (c *Consumer) free() {
	c.mu.Lock()
	var h *C.ottla_consumer
	if c.gone && c.users == 0 {
		h, c.h = c.h, nil
	}
	c.mu.Unlock()
	if h != nil {
		C.ottla_consumer_free(h)
	}
}

// NewConsumer makes a consumer.
func (c *Client) NewConsumer(o ConsumerOptions) (*Consumer, *Failure) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.h == nil {
		return nil, closed("client")
	}
	var m memory
	defer func() { m.free() }()
	options := C.ottla_consumer_options{
		size:                C.size_t(unsafe.Sizeof(C.ottla_consumer_options{})),
		start_value:         C.int64_t(o.StartValue),
		start:               C.int32_t(o.Start),
		isolation:           C.int32_t(o.Isolation),
		max_wait_ms:         C.int64_t(o.MaxWaitMs),
		min_bytes:           clampSize(o.MinBytes),
		max_bytes:           clampSize(o.MaxBytes),
		max_partition_bytes: clampSize(o.MaxPartitionBytes),
		buffer_memory:       clampSize(o.BufferBytes),
		tag:                 C.uint64_t(o.Tag),
	}
	o.GroupOptions.set(&options, &m)
	if n := len(o.Topics); n > 0 {
		options.topics, options.topic_count = m.texts(o.Topics), C.size_t(n)
	}
	if n := len(o.Assignments); n > 0 {
		options.assignments, options.assignment_count = m.assignments(o.Assignments), C.size_t(n)
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

// Batch is a batch copied out of the library: one arena, places in it. Index is given back once it was looked at.
type Batch struct {
	Topic      string
	Partition  int32
	NextOffset int64
	Arena      []byte
	Index      []Index
	// Wanted tells whether what is left of it is wanted.
	Wanted *Wanted
}

// Ends are where reading is to come to, as C reads them: made once for many looks.
type Ends struct {
	list  *C.ottla_partition_offset
	count C.size_t
	m     memory
}

// NewEnds copies them.
func NewEnds(list []End) *Ends {
	ends := &Ends{count: C.size_t(len(list))}
	ends.list = ends.m.ends(list)
	return ends
}

// Free frees them.
func (e *Ends) Free() { e.m.free() }

// TryNext gives the next batch, nil if there is none now; then a ConsumerReady completion comes
// when it is worth asking again. Up to these ends, unless they are nil: reached says that each partition has come to its
// own.
func (c *Consumer) TryNext(ends *Ends) (out *Batch, reached bool, _ *Failure) {
	if !c.Use() {
		return nil, false, closed("consumer")
	}
	defer c.Done()
	var batch *C.ottla_batch
	var e *C.ottla_error
	var there C.bool
	if ends == nil {
		ends = &Ends{}
	}
	status := C.ottla_consumer_try_next_until(c.h, ends.list, ends.count, &batch, &there, &e)
	if f := outcome(status, e); f != nil {
		return nil, false, f
	}
	if batch == nil {
		return nil, bool(there), nil
	}
	out, f := c.unload(batch)
	return out, false, f
}

// unload copies a batch and frees it.
func (c *Consumer) unload(batch *C.ottla_batch) (*Batch, *Failure) {
	defer C.ottla_batch_free(batch)
	var info C.ottla_batch_info
	var e *C.ottla_error
	if f := outcome(C.ottla_batch_describe(batch, &info, &e), e); f != nil {
		return nil, f
	}
	if name := unsafe.Slice((*byte)(unsafe.Pointer(info.topic)), int(info.topic_len)); c.topic != string(name) {
		c.topic = string(name)
	}
	out := &Batch{
		Topic:      c.topic,
		Partition:  int32(info.partition),
		NextOffset: int64(info.next_offset),
		// Never empty, so that an empty key or value has somewhere to point: nil means null.
		Arena: dirty(max(1, int(info.arena_len))),
	}
	var f *Failure
	if out.Wanted, f = wanted(batch); f != nil {
		return nil, f
	}
	n := int(info.record_count)
	if n == 0 {
		return out, nil
	}
	out.Index = c.places(n)
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

// dirty is memory that holds anything. To clear it costs as much as to fill it.
func dirty(n int) []byte {
	var b strings.Builder
	b.Grow(n)
	// So that there is a byte to point to; what is behind it is the builder's as well.
	b.WriteByte(0)
	return unsafe.Slice(unsafe.StringData(b.String()), n)
}

// Seek goes on elsewhere in a partition that is read.
func (c *Consumer) Seek(topic string, partition, start int32, value int64) *Failure {
	if !c.Use() {
		return closed("consumer")
	}
	defer c.Done()
	name := C.CString(topic)
	defer C.free(unsafe.Pointer(name))
	var e *C.ottla_error
	status := C.ottla_consumer_seek(c.h, name, C.int32_t(partition), C.int32_t(start), C.int64_t(value), &e)
	return outcome(status, e)
}

// Position is where reading stands in a partition, -1 if that is not known.
func (c *Consumer) Position(topic string, partition int32) (int64, *Failure) {
	return c.ask(topic, func(name *C.char, out *C.int64_t, e **C.ottla_error) C.ottla_status {
		return C.ottla_consumer_position(c.h, name, C.int32_t(partition), out, e)
	})
}

// Lag is how many offsets lie between that and the partition's end, -1 if that is not known.
func (c *Consumer) Lag(topic string, partition int32) (int64, *Failure) {
	return c.ask(topic, func(name *C.char, out *C.int64_t, e **C.ottla_error) C.ottla_status {
		return C.ottla_consumer_lag(c.h, name, C.int32_t(partition), out, e)
	})
}

func (c *Consumer) ask(topic string, call func(*C.char, *C.int64_t, **C.ottla_error) C.ottla_status) (int64, *Failure) {
	if !c.Use() {
		return -1, closed("consumer")
	}
	defer c.Done()
	name := C.CString(topic)
	defer C.free(unsafe.Pointer(name))
	var e *C.ottla_error
	var out C.int64_t
	f := outcome(call(name, &out, &e), e)
	return int64(out), f
}

// Close stops fetching; later calls are refused. Closing again does nothing.
func (c *Consumer) Close() {
	_ = c.with(func(e **C.ottla_error) C.ottla_status { return C.ottla_consumer_close(c.h, e) })
}

// Free frees the handle, as soon as no call uses it; later ones are refused. Freeing again does nothing.
func (c *Consumer) Free() {
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	c.free()
}
