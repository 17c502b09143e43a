package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

// Workers are added under load, and taken away again: each record is handled, and none is handled twice but what a worker had
// in hand when its partition went.
func TestAGroupGrowsAndShrinksUnderLoad(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	const partitions, topic, group = 8, "events", "workers"
	broker := ottlatest.NewCluster(t, 3)
	broker.CreateTopic(topic, partitions)

	var mu sync.Mutex
	handled := map[string]int{}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(handled)
	}
	await := func(what string, is func() bool) {
		t.Helper()
		for !is() {
			if ctx.Err() != nil {
				t.Fatalf("never %s; %d handled", what, count())
			}
			runtime.Gosched()
		}
	}
	members := func(n int) func() bool {
		return func() bool {
			state, members := broker.Group(group)
			return state == ottla.GroupStable && members == n
		}
	}

	// As many as the phases ask for, and then no more.
	writing, enough := context.WithCancel(ctx)
	written := make(chan int, 1)
	go func() {
		client := broker.Client()
		producer, err := client.NewProducer()
		if err != nil {
			t.Error(err)
			written <- 0
			return
		}
		n := 0
		for ; writing.Err() == nil; n++ {
			record := ottla.Record{Topic: topic, Value: fmt.Appendf(nil, "%d", n), To: ottla.ToPartition(int32(n % partitions))}
			if _, err := producer.ProduceSync(ctx, record); err != nil {
				t.Error(err)
				break
			}
		}
		written <- n
	}()

	var workers sync.WaitGroup
	start := func() (stop context.CancelFunc) {
		working, stop := context.WithCancel(ctx)
		client := broker.Client()
		workers.Add(1)
		go func() {
			defer workers.Done()
			err := handle(working, client, group, topic, func(record *ottla.Record) {
				mu.Lock()
				defer mu.Unlock()
				handled[string(record.Value)]++
			})
			if err != nil {
				t.Error(err)
			}
		}()
		return stop
	}
	more := func() {
		t.Helper()
		before := count()
		await("more is handled", func() bool { return count() > before+200 })
	}
	stops := []context.CancelFunc{start()}
	await("one member", members(1))
	more()
	for range 3 {
		stops = append(stops, start())
	}
	await("four members", members(4))
	more()
	stops[0]()
	stops[2]()
	await("two members", members(2))
	more()
	enough()
	all := <-written
	await("all handled", func() bool { return count() == all })
	stops[1]()
	stops[3]()
	workers.Wait()

	mu.Lock()
	defer mu.Unlock()
	twice := 0
	for i := range all {
		switch handled[fmt.Sprint(i)] {
		case 0:
			t.Errorf("%d was not handled", i)
		case 1:
		default:
			twice++
		}
	}
	// One in hand for each partition of who goes, in the three changes.
	if twice > 3*partitions {
		t.Errorf("%d of %d were handled twice", twice, all)
	}
	end := int64(0)
	for partition := range int32(partitions) {
		end += broker.Committed(group, topic, partition)
	}
	if end != int64(all) {
		t.Errorf("%d of %d are committed", end, all)
	}
}
