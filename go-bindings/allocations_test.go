package ottla

import (
	"context"
	"runtime"
	"testing"
)

// allocations is how many there are in the whole process for each of n records.
func allocations(n int, move func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	move()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n)
}

func resting(k *packer) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.submitting && !k.working
}

// What a record costs the garbage collector: nothing but the program's own closure. A pack, an outcome and a batch have some
// each, which thousands of records share here: how many it would be otherwise is a matter of how quick the machine is, as a
// pack leaves as soon as there is nothing under way.
func TestARecordIsNotAllocated(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	// As many as there is room for in packs that wait.
	const n = 20_000
	p := newProducer(t, c)
	record := Record{Topic: "t", Value: make([]byte, 100)}
	values := make([][]byte, n)
	for i := range values {
		values[i] = record.Value
	}
	flush := func() {
		release(p.packer)
		if err := p.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		// Nothing is under way any more, and the goroutine that flushed the last of it is through.
		for !resting(p.packer) {
			runtime.Gosched()
		}
	}
	// Buffers are made once.
	hold(t, p.packer)
	if _, err := p.ProduceMany(ctx, "t", values); err != nil {
		t.Fatal(err)
	}
	flush()
	// Of each pack, outcome and batch.
	const little = 0.1
	quiet := allocations(n, func() {
		hold(t, p.packer)
		for range n {
			p.Produce(ctx, record, nil)
		}
		flush()
	})
	if quiet > little {
		t.Errorf("%v allocations for a record without a callback", quiet)
	}
	many := allocations(n, func() {
		hold(t, p.packer)
		if _, err := p.ProduceMany(ctx, "t", values); err != nil {
			t.Error(err)
		}
		flush()
	})
	if many > little {
		t.Errorf("%v allocations for one of many values", many)
	}
	var last int
	told := allocations(n, func() {
		hold(t, p.packer)
		for i := range n {
			p.Produce(ctx, record, func(Delivery, error) { last = i })
		}
		flush()
	})
	if told > 1+little || last == 0 {
		t.Errorf("%v allocations for a record with a callback that captures", told)
	}
	consumer, err := c.NewConsumer(Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	bytes := 0
	read := allocations(n, func() {
		left := n
		for record, err := range consumer.Records(context.Background()) {
			if err != nil {
				t.Error(err)
				return
			}
			bytes += len(record.Value)
			if left--; left == 0 {
				return
			}
		}
	})
	if read > little || bytes != n*100 {
		t.Errorf("%v allocations for a record that is read; %d bytes", read, bytes)
	}
}

// The struct is the loop's own, the bytes are the batch's: what is kept of a record stays what it was.
func TestARecordThatIsKeptStaysWhatItWas(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	const n = 300
	for i := range n {
		p.Produce(ctx, Record{Topic: "t", Key: []byte{byte(i)}, Value: []byte{byte(i), 1},
			Headers: []Header{{Name: "h", Value: []byte{byte(i)}}}}, nil)
	}
	consumer, err := c.NewConsumer(Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	var kept []*Record
	for record, err := range consumer.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if kept = append(kept, &record); len(kept) == n {
			break
		}
	}
	runtime.GC()
	for i, r := range kept {
		if r.Offset != int64(i) || r.Key[0] != byte(i) || r.Value[0] != byte(i) || len(r.Headers) != 1 || r.Headers[0].Value[0] != byte(i) {
			t.Fatalf("record %d is %+v", i, r)
		}
	}
}
