package ottla

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// oddRecords has null, empty and present in every place, and header names that repeat.
func oddRecords(topic string) []Record {
	at := time.UnixMilli(1_700_000_000_123)
	return []Record{
		{Topic: topic, Value: []byte("plain")},
		{Topic: topic},
		{Topic: topic, Key: []byte{}, Value: []byte{}},
		{Topic: topic, Key: []byte("key"), Value: []byte("value"), Timestamp: at},
		{Topic: topic, Value: []byte("h"), Headers: []Header{
			{"a", []byte("1")}, {"a", nil}, {"", []byte{}}, {"ünï", []byte("2")},
		}},
		{Topic: topic, Headers: []Header{{"b", nil}}, Timestamp: time.UnixMilli(0)},
		{Topic: topic, Value: bytes.Repeat([]byte{0xff, 0}, 50_000)},
	}
}

func equalRecord(got *Record, want Record) error {
	same := func(name string, a, b []byte) error {
		if (a == nil) != (b == nil) || !bytes.Equal(a, b) {
			return fmt.Errorf("%s is %q (nil: %v), want %q (nil: %v)", name, a, a == nil, b, b == nil)
		}
		return nil
	}
	errs := []error{same("key", got.Key, want.Key), same("value", got.Value, want.Value)}
	if len(got.Headers) != len(want.Headers) {
		return fmt.Errorf("%d headers, want %d", len(got.Headers), len(want.Headers))
	}
	for i, h := range got.Headers {
		if h.Name != want.Headers[i].Name {
			errs = append(errs, fmt.Errorf("header %d is %q", i, h.Name))
		}
		errs = append(errs, same("header "+h.Name, h.Value, want.Headers[i].Value))
	}
	if !want.Timestamp.IsZero() && !got.Timestamp.Equal(want.Timestamp) {
		errs = append(errs, fmt.Errorf("timestamp %v, want %v", got.Timestamp, want.Timestamp))
	}
	return errors.Join(errs...)
}

func TestWhatIsProducedComesBackByteForByte(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	want := oddRecords("odd")
	for _, r := range want {
		p.Produce(ctx, r, nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, err := c.NewConsumer(Topics("odd"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for got, err := range consumer.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if err := equalRecord(&got, want[n]); err != nil {
			t.Fatalf("record %d: %v", n, err)
		}
		// Who appends to a part must not run into the next one.
		if cap(got.Key) != len(got.Key) || cap(got.Value) != len(got.Value) || cap(got.Headers) != len(got.Headers) {
			t.Errorf("record %d has room behind its parts", n)
		}
		for _, h := range got.Headers {
			if cap(h.Value) != len(h.Value) {
				t.Errorf("record %d has room behind its header %q", n, h.Name)
			}
		}
		if got.Topic != "odd" || got.Offset != int64(n) {
			t.Fatalf("record %d is at %s/%d", n, got.Topic, got.Offset)
		}
		if n++; n == len(want) {
			break
		}
	}
	if n != len(want) {
		t.Fatalf("%d of %d records", n, len(want))
	}
}

func TestSlicesMayBeReusedWhenProduceReturns(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	buf := make([]byte, 8)
	const n = 2000
	for i := range n {
		copy(buf, fmt.Sprintf("%08d", i))
		p.Produce(ctx, Record{Topic: "reuse", Key: buf, Value: buf}, nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, _ := c.NewConsumer(Topics("reuse"))
	i := 0
	for r, err := range consumer.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%08d", i); string(r.Value) != want || string(r.Key) != want {
			t.Fatalf("record %d is %q", i, r.Value)
		}
		if i++; i == n {
			break
		}
	}
}

func TestALoopLeftEarlyLosesNothing(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	const n = 100
	for i := range n {
		p.Produce(ctx, Record{Topic: "left", Value: []byte{byte(i)}}, nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, _ := c.NewConsumer(Topics("left"))
	for i := 0; i < n; {
		for r, err := range consumer.Records(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if r.Value[0] != byte(i) {
				t.Fatalf("record %d is %d", i, r.Value[0])
			}
			if i++; i%3 == 0 || i == n {
				break
			}
		}
	}
}

func TestProduceSyncFromManyGoroutines(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	const goroutines, each = 32, 200
	seen := make([]atomic.Bool, goroutines*each)
	var wg sync.WaitGroup
	for range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range each {
				d, err := p.ProduceSync(ctx, Record{Topic: "sync", Value: []byte("v")})
				if err != nil {
					t.Error(err)
					return
				}
				if seen[d.Offset].Swap(true) {
					t.Errorf("offset %d twice", d.Offset)
				}
				if d.Timestamp.IsZero() {
					t.Error("no timestamp")
				}
			}
		}()
	}
	wg.Wait()
	for i := range seen {
		if !seen[i].Load() {
			t.Fatalf("offset %d is missing", i)
		}
	}
}

func TestTimestampsInDeliveriesAreTheRecordsOwn(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	base := time.UnixMilli(1_600_000_000_000)
	var got []time.Time
	for i := range 100 {
		at := base.Add(time.Duration(i) * time.Minute)
		p.Produce(ctx, Record{Topic: "at", Timestamp: at}, func(d Delivery, _ error) { got = append(got, d.Timestamp) })
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for i, at := range got {
		if want := base.Add(time.Duration(i) * time.Minute); !at.Equal(want) {
			t.Fatalf("record %d: %v, want %v", i, at, want)
		}
	}
}

func TestARecordTheEngineRefusesDoesNotTakeOthersWithIt(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, MaxRecordSize(100))
	p.packer.maxRecord = 1 << 20 // The engine has to say it.
	var good, bad int
	for i := range 300 {
		n := 50
		if i%7 == 0 {
			n = 101
		}
		p.Produce(ctx, Record{Topic: "mixed", Value: make([]byte, n), Headers: []Header{}}, func(_ Delivery, err error) {
			switch {
			case err == nil && n == 50:
				good++
			case errors.Is(err, ErrRecordTooLarge) && n == 101:
				bad++
			default:
				t.Errorf("record %d of %d bytes: %v", i, n, err)
			}
		})
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if good != 257 || bad != 43 {
		t.Fatalf("%d good, %d bad", good, bad)
	}
}

func TestTopicsAreCreated(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	if err := c.CreateTopic(ctx, "made", 3, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopic(ctx, "made", 3, 1); !errors.Is(err, ErrTopicExists) {
		t.Errorf("again: %v", err)
	}
	if err := c.CreateTopic(ctx, "", 3, 1); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("no name: %v", err)
	}
}

func TestSeekAndAssign(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	for i := range 10 {
		p.Produce(ctx, Record{Topic: "seek", Value: []byte{byte(i)}, To: ToPartition(2)}, nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, err := c.NewConsumer(Assign(TopicPartition{Topic: "seek", Partition: 2, Start: AtOffset(4)}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []byte{4, 5} {
		for r, err := range consumer.Records(ctx) {
			if err != nil || r.Value[0] != want || r.Partition != 2 {
				t.Fatalf("%v, %v; want %d", r, err, want)
			}
			break
		}
	}
	if err := consumer.Seek("seek", 2, AtOffset(1)); err != nil {
		t.Fatal(err)
	}
	for r, err := range consumer.Records(ctx) {
		if err != nil || r.Value[0] != 1 {
			t.Fatalf("%v, %v", r, err)
		}
		break
	}
}

// What a loop has in hand when its body seeks is not handed out, now or to the next loop.
func TestASeekInALoop(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	for i := range 10 {
		p.Produce(ctx, Record{Topic: "seek", Value: []byte{byte(i)}, To: ToPartition(2)}, nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, err := c.NewConsumer(Assign(TopicPartition{Topic: "seek", Partition: 2, Start: AtOffset(4)}))
	if err != nil {
		t.Fatal(err)
	}
	next := func(leave bool) (got []byte) {
		for r, err := range consumer.Records(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r.Value[0])
			if len(got) == 1 {
				if err := consumer.Seek("seek", 2, AtOffset(1)); err != nil {
					t.Fatal(err)
				}
			}
			if leave || len(got) == 3 {
				break
			}
		}
		return got
	}
	if got := next(false); !bytes.Equal(got, []byte{4, 1, 2}) {
		t.Errorf("%v, after a seek to 1 behind the first", got)
	}
	if got := next(true); !bytes.Equal(got, []byte{3}) {
		t.Errorf("%v, where the last loop was left at 2", got)
	}
	if got := next(false); !bytes.Equal(got, []byte{1, 1, 2}) {
		t.Errorf("%v, after seeks to 1 and a loop that was left", got)
	}
}
