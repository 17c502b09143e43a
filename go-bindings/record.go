package ottla

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Header is a named value of a record. Names may repeat; a nil Value is null, an empty one is not.
type Header struct {
	// Name is UTF-8.
	Name  string
	Value []byte
}

// Record is a record to produce, or one that was consumed.
type Record struct {
	// Topic it is written to, or was read from.
	Topic string
	// Key, nil for none. It does not choose the partition: records with equal keys are kept together by
	// Partitioner(KeyHash) alone.
	Key []byte
	// Value; nil is a tombstone, []byte{} is empty.
	Value []byte
	// Headers, in order.
	Headers []Header
	// Timestamp in milliseconds' precision; the zero time lets the producer stamp it.
	Timestamp time.Time
	// To is where Produce writes it: by default the client spreads records over the partitions
	// and brokers that answer best. A record that was consumed can be produced again as it is.
	To Target
	// Partition and Offset tell where a consumed record was read. Produce does not look at them.
	Partition int32
	Offset    int64

	// of is set for a record of a group.
	of *share
}

// Clone is the same record in memory of its own. A record that was consumed shares its batch's, and who keeps one keeps all of that:
// a mebibyte, say, for one record. It can be acknowledged as the record itself.
func (r Record) Clone() Record {
	size := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		size += len(r.Headers[i].Name) + len(r.Headers[i].Value)
	}
	// One piece; what is null stays null, and what is empty empty.
	memory := make([]byte, 0, size)
	part := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		from := len(memory)
		memory = append(memory, b...)
		return memory[from:len(memory):len(memory)]
	}
	r.Key, r.Value = part(r.Key), part(r.Value)
	if r.Headers != nil {
		headers := make([]Header, len(r.Headers))
		for i, h := range r.Headers {
			headers[i] = Header{Name: strings.Clone(h.Name), Value: part(h.Value)}
		}
		r.Headers = headers
	}
	return r
}

// Target is where a record goes. The zero Target leaves the choice to the client.
type Target struct {
	// The partition + 1, so that zero means none.
	partition int32
}

// ToPartition is the target for one partition of the topic, counted from 0.
func ToPartition(partition int32) Target {
	if partition < 0 || partition == math.MaxInt32 {
		return Target{partition: -1}
	}
	return Target{partition: partition + 1}
}

// Delivery tells where an acknowledged record is.
type Delivery struct {
	Topic     string
	Partition int32
	// Offset in the partition; -1 if the broker did not tell, as for some repeated sends.
	Offset int64
	// Timestamp the record has in the log, to the millisecond. Records that the producer stamped
	// in one batch share the stamp of the first.
	Timestamp time.Time
}

const (
	// headLen are the bytes before a packed record's key.
	headLen = 24
	// maxPart keeps every length of a packed record in an int32.
	maxPart = math.MaxInt32 / 4
)

// packedSize checks a record and gives its size in the packed form, and the size of its parts
// alone, which is what max_record_size bounds.
func (r *Record) packedSize() (packed, parts int, err error) {
	if r.Topic == "" {
		return 0, 0, badTopic("")
	}
	if r.To.partition < 0 {
		return 0, 0, invalid("the record goes to a partition below 0: they count from 0")
	}
	if !r.Timestamp.IsZero() && r.Timestamp.UnixMilli() < 0 {
		return 0, 0, invalid("the record's timestamp %v is before 1970; the zero time has the producer stamp it", r.Timestamp)
	}
	parts = len(r.Key) + len(r.Value)
	packed = headLen + parts
	for i := range r.Headers {
		h := &r.Headers[i]
		if !utf8.ValidString(h.Name) {
			return 0, 0, invalid("header name %q is not UTF-8", h.Name)
		}
		parts += len(h.Name) + len(h.Value)
		packed += 8 + len(h.Name) + len(h.Value)
	}
	if packed > maxPart {
		return 0, 0, tooLarge(r.Topic, parts, maxPart)
	}
	return packed, parts, nil
}

func tooLarge(topic string, size, limit int) error {
	return &Error{
		Code:    ErrRecordTooLarge,
		Message: fmt.Sprintf("a record for '%s' has %d bytes; at most %d fit", topic, size, limit),
		Advice:  "split the record, or raise MaxRecordSize here and max.message.bytes of the topic",
	}
}

// stampMs is the record's own timestamp, -1 for none.
func (r *Record) stampMs() int64 {
	if r.Timestamp.IsZero() {
		return -1
	}
	return r.Timestamp.UnixMilli()
}

// pack appends the record in the packed form (see ottla.h), which has this size. It has passed packedSize.
func (r *Record) pack(out []byte, size int) []byte {
	at := len(out)
	out = extend(out, size)
	head := (*[headLen]byte)(out[at:])
	binary.LittleEndian.PutUint32(head[0:], uint32(r.To.partition-1))
	binary.LittleEndian.PutUint32(head[4:], uint32(len(r.Headers)))
	binary.LittleEndian.PutUint64(head[8:], uint64(r.stampMs()))
	binary.LittleEndian.PutUint32(head[16:], nullable(r.Key))
	binary.LittleEndian.PutUint32(head[20:], nullable(r.Value))
	at += headLen
	at += copy(out[at:], r.Key)
	at += copy(out[at:], r.Value)
	for i := range r.Headers {
		h := &r.Headers[i]
		binary.LittleEndian.PutUint32(out[at:], uint32(len(h.Name)))
		at += 4
		at += copy(out[at:], h.Name)
		binary.LittleEndian.PutUint32(out[at:], nullable(h.Value))
		at += 4
		at += copy(out[at:], h.Value)
	}
	return out
}

// packValue is pack for a record of a value alone.
func packValue(out []byte, value []byte) []byte {
	at := len(out)
	out = extend(out, headLen+len(value))
	head := (*[headLen]byte)(out[at:])
	// No partition, no headers, no timestamp, no key.
	binary.LittleEndian.PutUint64(head[0:], math.MaxUint32)
	binary.LittleEndian.PutUint64(head[8:], math.MaxUint64)
	binary.LittleEndian.PutUint32(head[16:], math.MaxUint32)
	binary.LittleEndian.PutUint32(head[20:], nullable(value))
	copy(out[at+headLen:], value)
	return out
}

// extend makes it longer by size bytes, whatever they are.
func extend(out []byte, size int) []byte {
	if cap(out)-len(out) < size {
		out = slices.Grow(out, size)
	}
	return out[:len(out)+size]
}

// nullable is a length, or -1 for nil.
func nullable(b []byte) uint32 {
	if b == nil {
		return math.MaxUint32
	}
	return uint32(len(b))
}

// skipPacked gives where record n starts in packed bytes that pack made.
func skipPacked(packed []byte, n int) int {
	at := 0
	length := func(at int) int { return max(0, int(int32(binary.LittleEndian.Uint32(packed[at:])))) }
	for ; n > 0; n-- {
		headers := length(at + 4)
		at += headLen + length(at+16) + length(at+20)
		for ; headers > 0; headers-- {
			at += 4 + length(at)
			at += 4 + length(at)
		}
	}
	return at
}

// hasNUL: C would cut the name there, and write to another topic.
func hasNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }
