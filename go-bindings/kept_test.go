package ottla

import (
	"bytes"
	"runtime"
	"testing"
)

// alive is how much the garbage collector finds in use.
func alive() uint64 {
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	return memory.HeapAlloc
}

// Of 300 batches of a mebibyte one record each is kept: that is 300 records, and not 300 MiB.
const (
	keptBatches = 300
	keptEach    = 100
	keptSize    = 10 << 10
	keptBound   = keptBatches*keptSize + 16<<20
)

func TestWhatIsClonedKeepsNoBatch(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	reader, err := c.NewConsumer(Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	values := make([][]byte, keptEach)
	for i := range values {
		values[i] = bytes.Repeat([]byte{7}, keptSize)
	}
	before := alive()
	var kept []Record
	for range keptBatches {
		if _, err := p.ProduceMany(ctx, "t", values); err != nil {
			t.Fatal(err)
		}
		if err := p.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		for read := 0; read < keptEach; {
			batch, err := reader.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if read == 0 {
				kept = append(kept, batch.Records[0].Clone())
			}
			read += len(batch.Records)
		}
	}
	if after := alive(); after > before+keptBound {
		t.Errorf("%d bytes more are alive with %d records kept, of %d", after-before, len(kept), keptBound)
	}
	for _, record := range kept {
		if len(record.Value) != keptSize || record.Value[0] != 7 || record.Key != nil || record.Topic != "t" {
			t.Fatalf("%d bytes were kept", len(record.Value))
		}
	}
	runtime.KeepAlive(reader)
}

// So it is in a group, where a record has to be acknowledged: what knows which of a batch are done keeps none of them.
func TestWhatIsClonedOfAGroupsBatchKeepsNoBatch(t *testing.T) {
	Limit(t)
	before := alive()
	var kept []Record
	for range keptBatches {
		memory := make([]byte, keptEach*keptSize)
		batch := &Batch{Records: make([]Record, keptEach)}
		for i := range batch.Records {
			batch.Records[i] = Record{Offset: int64(i), Value: memory[i*keptSize : (i+1)*keptSize]}
		}
		batch.shared()
		kept = append(kept, batch.Records[1].Clone())
	}
	if after := alive(); after > before+keptBound {
		t.Errorf("%d bytes more are alive with %d records kept, of %d", after-before, len(kept), keptBound)
	}
	for _, record := range kept {
		if at, found := record.of.find(record.Offset); !found || at != 1 {
			t.Fatal("what is cloned is not known to its batch any more")
		}
	}
}

func TestACloneIsTheSame(t *testing.T) {
	Limit(t)
	value := []byte("value")
	record := Record{
		Topic: "t", Key: []byte{}, Value: value, Offset: 5, Partition: 2,
		Headers: []Header{{Name: "a", Value: nil}, {Name: "b", Value: []byte{}}, {Name: "c", Value: []byte("x")}},
	}
	clone := record.Clone()
	copy(value, "other")
	record.Headers[2].Value[0] = 'y'
	if string(clone.Value) != "value" || clone.Key == nil || len(clone.Key) != 0 || clone.Offset != 5 || clone.Partition != 2 {
		t.Errorf("%+v", clone)
	}
	h := clone.Headers
	if len(h) != 3 || h[0].Value != nil || h[1].Value == nil || string(h[2].Value) != "x" || h[2].Name != "c" {
		t.Errorf("%+v", h)
	}
	// To append to one part does not run into the next.
	_ = append(clone.Value, "more"...)
	if string(h[2].Value) != "x" {
		t.Errorf("%+v", h)
	}
	if none := (Record{}).Clone(); none.Key != nil || none.Value != nil || none.Headers != nil {
		t.Errorf("%+v", none)
	}
}
