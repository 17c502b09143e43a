package ottla_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"testing"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

// wander moves a goroutine between threads as it goes.
func wander(i int) {
	switch {
	case i%61 == 0:
		// A locked goroutine that yields gives its processor to another thread.
		runtime.LockOSThread()
		runtime.Gosched()
		runtime.UnlockOSThread()
	case i%7 == 0:
		runtime.Gosched()
	}
}

// checkOrder reads count records of a topic, and wants those of each caller, who is in the key, in the
// order of their numbers, none missing and none twice.
func checkOrder(t *testing.T, client *ottla.Client, topic string, count int) {
	t.Helper()
	consumer, err := client.NewConsumer(ottla.Topics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	next := map[string]uint64{}
	read, wrong := 0, 0
	for record, err := range consumer.Records(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		caller, number := string(record.Key), binary.BigEndian.Uint64(record.Value)
		if want := next[caller]; number != want {
			if wrong++; wrong <= 3 {
				t.Errorf("%s[%d]@%d: caller %s's record %d, not %d", topic, record.Partition, record.Offset, caller, number, want)
			}
		}
		next[caller] = number + 1
		if read++; read == count {
			break
		}
	}
	if wrong > 0 {
		t.Errorf("%s: %d of %d records out of order", topic, wrong, count)
	}
}

// What one goroutine hands over one after the other stands in its partition's log in that order,
// whichever threads the goroutine, and the packer's, run on.
func TestTheOrderOfCallsIsTheOrderInTheLog(t *testing.T) {
	ottla.Limit(t)
	const each = 20_000
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	broker := ottlatest.NewCluster(t, 3)
	client := broker.Client()
	ctx := within(t)
	small := ottla.BatchSize(8 << 10)
	for _, tt := range []struct {
		name       string
		partitions int
		callers    int
		options    []ottla.ProducerOption
		// place says where a record goes; sync, whether it is waited for.
		place func(*ottla.Record)
		sync  func(i int) bool
	}{
		{"not-named", 1, 1, []ottla.ProducerOption{small}, nil, nil},
		{"four-callers", 1, 4, []ottla.ProducerOption{small}, nil, nil},
		{"named", 3, 4, []ottla.ProducerOption{small}, func(r *ottla.Record) { r.To = ottla.ToPartition(1) }, nil},
		{"key-hash", 3, 4, []ottla.ProducerOption{small, ottla.Partitioner(ottla.KeyHash)}, nil, nil},
		// Packs wait for the engine's memory, calls for the packer's.
		{"little-memory", 1, 4, []ottla.ProducerOption{small, ottla.BufferMemory(1 << 20)}, nil, nil},
		// Those who wait for their record submit it themselves, on their thread.
		{"sync-between", 1, 2, []ottla.ProducerOption{small, ottla.Linger(0)}, nil, func(i int) bool { return i%199 == 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			broker.CreateTopic(tt.name, tt.partitions)
			producer := producerOf(t, client, tt.options...)
			defer producer.Close()
			var all sync.WaitGroup
			for caller := range tt.callers {
				all.Add(1)
				go func() {
					defer all.Done()
					key := fmt.Append(nil, caller)
					for i := range each {
						record := ottla.Record{Topic: tt.name, Key: key, Value: binary.BigEndian.AppendUint64(make([]byte, 0, 64), uint64(i))[:64]}
						if tt.place != nil {
							tt.place(&record)
						}
						if tt.sync != nil && tt.sync(i) {
							if _, err := producer.ProduceSync(ctx, record); err != nil {
								t.Error(err)
							}
						} else {
							producer.Produce(ctx, record, nil)
						}
						wander(i)
					}
				}()
			}
			all.Wait()
			if err := producer.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			checkOrder(t, client, tt.name, each*tt.callers)
		})
	}
}
