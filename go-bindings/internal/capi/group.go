package capi

/*
#cgo noescape ottla_wanted_ack_before
#cgo nocallback ottla_wanted_ack_before
#include <stdlib.h>
#include "library.h"
*/
import "C"

import (
	"math"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"
)

// Values of Commit: ottla_commit.
const (
	CommitAcked       = int32(C.OTTLA_COMMIT_ACKED)
	CommitManualAcked = int32(C.OTTLA_COMMIT_MANUAL_ACKED)
)

// Values of Protocol: ottla_group_protocol.
const (
	GroupProtocolClassic = int32(C.OTTLA_GROUP_PROTOCOL_CLASSIC)
	GroupProtocolNext    = int32(C.OTTLA_GROUP_PROTOCOL_NEXT)
)

// GroupOptions are those of ottla_consumer_options that are about its group; zero is always the default.
type GroupOptions struct {
	Group, InstanceID, Assignors, RemoteAssignor       string
	SessionTimeoutMs, MaxPollIntervalMs, CommitEveryMs int64
	Commit, Protocol                                   int32
}

func (o *GroupOptions) set(options *C.ottla_consumer_options, m *memory) {
	text := func(s string) *C.char {
		if s == "" {
			return nil
		}
		return m.text(s)
	}
	options.group = text(o.Group)
	options.instance_id = text(o.InstanceID)
	options.assignors = text(o.Assignors)
	options.remote_assignor = text(o.RemoteAssignor)
	options.group_protocol = C.int32_t(o.Protocol)
	options.session_timeout_ms = C.int64_t(o.SessionTimeoutMs)
	options.max_poll_interval_ms = C.int64_t(o.MaxPollIntervalMs)
	options.commit_interval_ms = C.int64_t(o.CommitEveryMs)
	options.commit = C.int32_t(o.Commit)
}

// shared is memory that the library shares, for as long as the ottla_wanted: where a batch stands, and where a group's
// consumer says which record it has in hand, or hands on.
type shared struct {
	standing *uint32
	reached  *int64
	handedOn *int64
}

func share(h *C.ottla_wanted) (shared, *Failure) {
	var words C.ottla_wanted_words
	var e *C.ottla_error
	if f := outcome(C.ottla_wanted_share(h, &words, &e), e); f != nil {
		return shared{}, f
	}
	return shared{
		(*uint32)(unsafe.Pointer(words.standing)),
		(*int64)(unsafe.Pointer(words.reached)),
		(*int64)(unsafe.Pointer(words.handed_on)),
	}, nil
}

// Standing asks, without a call.
func (w *Wanted) Standing() Standing {
	standing := Standing(atomic.LoadUint32(w.shared.standing))
	runtime.KeepAlive(w)
	return min(standing, Left)
}

// IsCurrent tells whether Standing is Current: small enough to be inlined, as it is asked for every record.
func (w *Wanted) IsCurrent() bool {
	current := atomic.LoadUint32(w.shared.standing) == uint32(Current)
	runtime.KeepAlive(w)
	return current
}

// Reached says, without a call, that the record at this offset is in hand: those of the batch before it are done.
func (w *Wanted) Reached(offset int64) {
	if w.shared.reached != nil {
		atomic.StoreInt64(w.shared.reached, offset)
	}
	runtime.KeepAlive(w)
}

// HandsOn says, without a call, that the record at this offset is handed on, which says nothing of those before it.
func (w *Wanted) HandsOn(offset int64) {
	if w.shared.handedOn != nil {
		atomic.StoreInt64(w.shared.handedOn, offset)
	}
	runtime.KeepAlive(w)
}

// PutAside says that nobody has the batch's records from an offset on in hand, or somebody has again.
func (w *Wanted) PutAside(offset int64, aside bool) {
	var flag C.int32_t
	if aside {
		flag = 1
	}
	var e *C.ottla_error
	_ = outcome(C.ottla_wanted_put_aside(w.h, C.int64_t(offset), flag, &e), e)
	runtime.KeepAlive(w)
}

// WaitsNoMore says that nobody waits any more of those who were given nothing.
func (c *Consumer) WaitsNoMore() {
	if !c.Use() {
		return
	}
	defer c.Done()
	var e *C.ottla_error
	_ = outcome(C.ottla_consumer_waits_no_more(c.h, &e), e)
}

// EndOfBatch is an offset behind all of a batch.
const EndOfBatch = math.MaxInt64

// AckBefore says that the records of the batch before an offset are done.
func (w *Wanted) AckBefore(offset int64) {
	var e *C.ottla_error
	_ = outcome(C.ottla_wanted_ack_before(w.h, C.int64_t(offset), &e), e)
	runtime.KeepAlive(w)
}

// Kinds of events: ottla_event_kind.
const (
	EventAssigned = int32(C.OTTLA_EVENT_ASSIGNED)
	EventGivingUp = int32(C.OTTLA_EVENT_GIVING_UP)
	EventLost     = int32(C.OTTLA_EVENT_LOST)
)

// Event is an ottla_event, copied.
type Event struct {
	Kind       int32
	Partitions []Partition
	Left       time.Duration
}

// TryNextEvent is TryNext with what the group says between two batches: one of both, or nil.
func (c *Consumer) TryNextEvent() (*Batch, *Event, *Failure) {
	if !c.Use() {
		return nil, nil, closed("consumer")
	}
	defer c.Done()
	var batch *C.ottla_batch
	var event *C.ottla_event
	var e *C.ottla_error
	if f := outcome(C.ottla_consumer_try_next_event(c.h, &batch, &event, &e), e); f != nil {
		return nil, nil, f
	}
	if batch != nil {
		out, f := c.unload(batch)
		return out, nil, f
	}
	if event == nil {
		return nil, nil, nil
	}
	defer C.ottla_event_free(event)
	list, f := listed(C.ottla_event_partitions(event))
	out := &Event{
		Kind: int32(C.ottla_event_kind_of(event)), Partitions: list,
		Left: time.Duration(C.ottla_event_time_left_ms(event)) * time.Millisecond,
	}
	return nil, out, f
}

// Commit commits what is done; ends in a Committed completion if it gives nil.
func (c *Consumer) Commit(tag uint64) *Failure {
	return c.with(func(e **C.ottla_error) C.ottla_status {
		return C.ottla_consumer_commit(c.h, C.uint64_t(tag), e)
	})
}

// CommitTo commits these offsets; ends in a Committed completion if it gives nil.
func (c *Consumer) CommitTo(list []End, tag uint64) *Failure {
	var m memory
	defer func() { m.free() }()
	return c.with(func(e **C.ottla_error) C.ottla_status {
		return C.ottla_consumer_commit_to(c.h, m.ends(list), C.size_t(len(list)), C.uint64_t(tag), e)
	})
}

// Subscribe reads these topics from now on.
func (c *Consumer) Subscribe(topics []string) *Failure {
	var m memory
	defer func() { m.free() }()
	return c.with(func(e **C.ottla_error) C.ottla_status {
		return C.ottla_consumer_subscribe(c.h, m.texts(topics), C.size_t(len(topics)), e)
	})
}

// Leave closes the consumer; ends in a Closed completion, once it has left its group, if it gives nil.
func (c *Consumer) Leave(tag uint64) *Failure {
	return c.with(func(e **C.ottla_error) C.ottla_status {
		return C.ottla_consumer_leave(c.h, C.uint64_t(tag), e)
	})
}

func (c *Consumer) with(call func(**C.ottla_error) C.ottla_status) *Failure {
	if !c.Use() {
		return closed("consumer")
	}
	defer c.Done()
	var e *C.ottla_error
	status := call(&e)
	return outcome(status, e)
}

// Values of a group's state: ottla_test_group_state.
const (
	TestGroupNone        = int32(C.OTTLA_TEST_GROUP_NONE)
	TestGroupEmpty       = int32(C.OTTLA_TEST_GROUP_EMPTY)
	TestGroupRebalancing = int32(C.OTTLA_TEST_GROUP_REBALANCING)
	TestGroupStable      = int32(C.OTTLA_TEST_GROUP_STABLE)
)

// Group is where a group is, and how many members it has.
func (b *TestBroker) Group(group string) (state int32, members int, _ *Failure) {
	name := C.CString(group)
	defer C.free(unsafe.Pointer(name))
	var at C.int32_t
	var n C.size_t
	f := b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_group(h, name, &at, &n, e)
	})
	return int32(at), int(n), f
}

// Committed is what a group has committed for a partition, -1 for nothing.
func (b *TestBroker) Committed(group, topic string, partition int32) (int64, *Failure) {
	var m memory
	defer func() { m.free() }()
	offset := C.int64_t(-1)
	f := b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_committed(h, m.text(group), m.text(topic), C.int32_t(partition), &offset, e)
	})
	return int64(offset), f
}

// SetCommitted commits an offset, whoever is in the group.
func (b *TestBroker) SetCommitted(group, topic string, partition int32, offset int64) *Failure {
	var m memory
	defer func() { m.free() }()
	return b.with(func(h *C.ottla_test_broker, e **C.ottla_error) C.ottla_status {
		return C.ottla_test_broker_set_committed(h, m.text(group), m.text(topic), C.int32_t(partition), C.int64_t(offset), e)
	})
}
