package ottlatest_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

const produceAPI = 0

// What a test does to a cluster happens, and is seen.
func TestAClusterDoesWhatItIsTold(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	broker := ottlatest.NewCluster(t, 2)
	broker.CreateReplicatedTopic("t", 1, 2)
	client := broker.Client()
	producer, err := client.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	stamp := time.UnixMilli(1_700_000_000_000)
	sent := ottla.Record{
		Topic: "t", Key: []byte{0, 255}, Timestamp: stamp,
		Headers: []ottla.Header{{Name: "h", Value: []byte("v")}, {Name: "n"}},
	}
	if _, err := producer.ProduceSync(ctx, sent); err != nil {
		t.Fatal(err)
	}
	records := broker.Records("t", 0, false)
	if len(records) != 1 || !slices.Equal(records[0].Key, sent.Key) || records[0].Value != nil || !records[0].Timestamp.Equal(stamp) {
		t.Fatalf("%+v", records)
	}
	if h := records[0].Headers; len(h) != 2 || h[0].Name != "h" || string(h[0].Value) != "v" || h[1].Value != nil {
		t.Errorf("%+v", h)
	}

	before := broker.Partition("t", 0)
	other := 3 - before.Leader
	broker.MoveLeader("t", 0, other)
	if after := broker.Partition("t", 0); after.Leader != other || after.LeaderEpoch <= before.LeaderEpoch || after.LogEnd != 1 {
		t.Errorf("%+v, before %+v", after, before)
	}
	if n := broker.ElectPreferredLeaders(); n != 1 {
		t.Errorf("%d partitions went back", n)
	}
	// An answer without its request's effect, once: sent again.
	api := int16(produceAPI)
	broker.Inject(ottla.Fault{Kind: ottla.FaultCutBeforeAppend, API: &api, Times: 1})
	if _, err := producer.ProduceSync(ctx, ottla.Record{Topic: "t", Value: []byte("again")}); err != nil {
		t.Fatal(err)
	}
	if n := broker.FaultsFired(); n != 1 {
		t.Errorf("%d faults", n)
	}
	var produced, requests uint64
	for _, stats := range broker.Stats() {
		produced += stats.ProduceRecords
		requests += stats.Requests[produceAPI]
	}
	if produced != 2 || requests < 3 {
		t.Errorf("%d records in %d requests", produced, requests)
	}
	if start := broker.DeleteRecords("t", 0, 1); start != 1 || len(broker.Records("t", 0, true)) != 1 {
		t.Errorf("the log begins at %d", start)
	}
	broker.CreatePartitions("t", 3)
	if broker.Partition("t", 2).LogEnd != 0 || !slices.Equal(broker.Topics(), []string{"t"}) {
		t.Error("a topic with three partitions")
	}
	broker.SetCommitted("g", "t", 0, 1)
	if !slices.Contains(broker.Groups(), "g") || len(broker.Members("g")) != 0 {
		t.Errorf("groups %v", broker.Groups())
	}
	broker.MoveCoordinator("g", 2)
	if id := broker.Coordinator("g"); id != 2 {
		t.Errorf("broker %d coordinates", id)
	}
	broker.CutConnections(1)
	broker.FenceBroker(1)
	broker.UnfenceBroker(1)
	broker.DeleteTopic("t")
	if n := len(broker.Topics()); n != 0 {
		t.Errorf("%d topics are left", n)
	}
}

func TestWhatAClusterCanNotDoIsSaid(t *testing.T) {
	embedded, err := ottla.StartEmbeddedBroker(1)
	if err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"a topic":   func() error { return embedded.DeleteTopic("nowhere") },
		"a broker":  func() error { return embedded.FenceBroker(7) },
		"a kind":    func() error { return embedded.Inject(ottla.Fault{Kind: "rain"}) },
		"a place":   func() error { return embedded.Inject(ottla.Fault{Kind: ottla.FaultDelay, Topic: "t"}) },
		"a NUL":     func() error { return embedded.DeleteTopic("a\x00b") },
		"no leader": func() error { return embedded.MoveLeader("nowhere", 0, 1) },
	} {
		if err := do(); !errors.Is(err, ottla.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	embedded.Close()
	if err := embedded.ClearFaults(); !errors.Is(err, ottla.ErrClosed) {
		t.Errorf("of a closed one: %v", err)
	}
}
