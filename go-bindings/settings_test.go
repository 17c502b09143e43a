package ottla_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

var allCodecs = []ottla.Codec{ottla.None, ottla.LZ4, ottla.Snappy, ottla.Gzip, ottla.Zstd}

func producerOf(t *testing.T, client *ottla.Client, options ...ottla.ProducerOption) *ottla.Producer {
	t.Helper()
	producer, err := client.NewProducer(options...)
	if err != nil {
		t.Fatal(err)
	}
	return producer
}

func deliver(t *testing.T, producer *ottla.Producer, record ottla.Record) ottla.Delivery {
	t.Helper()
	at, err := producer.ProduceSync(within(t), record)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// until looks again and again.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx := within(t)
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// text has little order: levels of a codec differ on it.
func text() []byte {
	out := make([]byte, 200_000)
	state := uint32(1)
	for i := range out {
		state = state*1664525 + 1013904223
		out[i] = "etaoinshrdluetao"[state>>28]
		if i%6 == 5 {
			out[i] = ' '
		}
	}
	return out
}

func TestBatchesAreCompressedAsChosen(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewBroker(t)
	client := broker.Client()
	check := func(topic string, producer *ottla.Producer, want ottla.Codec) {
		t.Helper()
		broker.CreateTopic(topic, 1)
		deliver(t, producer, ottla.Record{Topic: topic, Value: text()})
		if got := broker.Codecs(topic); !slices.Equal(got, []ottla.Codec{want}) {
			t.Errorf("%s is compressed with %v, not %v", topic, got, want)
		}
	}
	check("default", producerOf(t, client), ottla.LZ4)
	for _, codec := range allCodecs {
		check(codec.String(), producerOf(t, client, ottla.Compression(codec)), codec)
	}
	producer := producerOf(t, client, ottla.Compression(ottla.Snappy),
		ottla.TopicCompression("a", ottla.Zstd), ottla.TopicCompression("b", ottla.Gzip.Level(9)))
	check("a", producer, ottla.Zstd)
	check("b", producer, ottla.Gzip)
	check("c", producer, ottla.Snappy)
}

func TestLevels(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewBroker(t)
	broker.CreateTopic("t", 1)
	client := broker.Client()
	sent := func() uint64 {
		stats, err := client.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return stats.ProduceBytes
	}
	size := func(option ottla.ProducerOption) uint64 {
		before := sent()
		deliver(t, producerOf(t, client, option), ottla.Record{Topic: "t", Value: text()})
		return sent() - before
	}
	for _, codec := range []struct{ quick, small, usual ottla.Codec }{
		{ottla.Gzip.Level(1), ottla.Gzip.Level(9), ottla.Gzip},
		{ottla.Zstd.Level(-7), ottla.Zstd.Level(19), ottla.Zstd.Level(0)},
	} {
		quick := size(ottla.Compression(codec.quick))
		for _, other := range []ottla.Codec{codec.small, codec.usual} {
			if got := size(ottla.Compression(other)); got >= quick {
				t.Errorf("%v makes %d bytes, %v %d", codec.quick, quick, other, got)
			}
		}
		if got, usual := size(ottla.TopicCompression("t", codec.quick)), size(ottla.Compression(codec.usual)); got <= usual {
			t.Errorf("%v makes %d bytes for the topic, %v %d", codec.quick, got, codec.usual, usual)
		}
		if got := size(ottla.TopicCompression("t", codec.small)); got >= quick {
			t.Errorf("%v makes %d bytes for the topic, %v %d", codec.quick, quick, codec.small, got)
		}
	}
	for _, wrong := range []ottla.Codec{
		ottla.None.Level(1), ottla.LZ4.Level(1), ottla.Snappy.Level(1),
		ottla.Gzip.Level(10), ottla.Zstd.Level(23), ottla.Zstd.Level(math.MinInt),
	} {
		for _, option := range []ottla.ProducerOption{ottla.Compression(wrong), ottla.TopicCompression("t", wrong)} {
			if _, err := client.NewProducer(option); !errors.Is(err, ottla.ErrConfig) || !strings.Contains(err.Error(), "level") {
				t.Errorf("%v: %v", wrong, err)
			}
		}
	}
	if name := ottla.Zstd.Level(-5).String(); name != "zstd:-5" {
		t.Error(name)
	}
}

func TestKeysGoWhereJavaPutsThem(t *testing.T) {
	ottla.Limit(t)
	const partitions = 7
	broker := ottlatest.NewCluster(t, 3)
	broker.CreateTopic("t", partitions)
	producer := producerOf(t, broker.Client(), ottla.Partitioner(ottla.KeyHash))
	// What Java's Utils.murmur2 makes of them.
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "abc": 479470107,
		"a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829,
	} {
		for range 3 {
			at := deliver(t, producer, ottla.Record{Topic: "t", Key: []byte(key)})
			if want := (hash & math.MaxInt32) % partitions; at.Partition != want {
				t.Errorf("%s is in partition %d, not %d", key, at.Partition, want)
			}
		}
	}
}

func TestAcks(t *testing.T) {
	ottla.Limit(t)
	for _, tt := range []struct {
		name   string
		acks   ottla.Acknowledgement
		offset int64
	}{{"all", ottla.AcksAll, 0}, {"leader", ottla.AcksLeader, 0}, {"none", ottla.AcksNone, -1}} {
		t.Run(tt.name, func(t *testing.T) {
			broker := ottlatest.NewCluster(t, 2)
			broker.CreateReplicatedTopic("t", 1, 2)
			// Followers copy nothing: only what needs them waits.
			broker.SetReplicaDelay(-1)
			client := broker.Client()
			producer := producerOf(t, client, ottla.Acks(tt.acks))
			told := make(chan ottla.Delivery, 1)
			producer.Produce(within(t), ottla.Record{Topic: "t"}, func(d ottla.Delivery, err error) {
				if err != nil {
					t.Error(err)
				}
				told <- d
			})
			until(t, "the record is written", func() bool { return broker.LogEnd("t", 0) == 1 })
			if tt.acks == ottla.AcksAll {
				select {
				case d := <-told:
					t.Errorf("acknowledged without followers: %+v", d)
				default:
				}
				broker.SetReplicaDelay(0)
			}
			select {
			case d := <-told:
				if d.Offset != tt.offset {
					t.Errorf("the offset is %d, not %d", d.Offset, tt.offset)
				}
			case <-within(t).Done():
				t.Fatal("not acknowledged")
			}
			stats, err := client.Stats()
			if err != nil {
				t.Fatal(err)
			}
			ids := uint64(0)
			for _, b := range stats.Brokers {
				ids += b.Requests["InitProducerId"].Sent
			}
			if idempotent := ids > 0; idempotent != (tt.acks == ottla.AcksAll) {
				t.Errorf("%d producer ids were asked for", ids)
			}
		})
	}
}

// The broker is lost that has the record and did not say so.
func TestInDoubt(t *testing.T) {
	ottla.Limit(t)
	const brokers = 3
	for _, tt := range []struct {
		name    string
		doubt   ottla.Doubt
		written int64
	}{{"wait", ottla.InDoubtWait, 1}, {"reroute", ottla.InDoubtReroute, 2}} {
		t.Run(tt.name, func(t *testing.T) {
			broker := ottlatest.NewCluster(t, brokers)
			broker.CreateReplicatedTopic("t", brokers, brokers)
			broker.SetReplicaDelay(-1)
			producer := producerOf(t, broker.Client(), ottla.InDoubt(tt.doubt))
			told := make(chan ottla.Delivery, 1)
			producer.Produce(within(t), ottla.Record{Topic: "t"}, func(d ottla.Delivery, err error) {
				if err != nil {
					t.Error(err)
				}
				told <- d
			})
			at := int32(-1)
			until(t, "the record is written", func() bool {
				for p := range int32(brokers) {
					if broker.LogEnd("t", p) > 0 {
						at = p
					}
				}
				return at >= 0
			})
			broker.StopBroker(int(at)+1, false)
			broker.SetReplicaDelay(0)
			if tt.doubt == ottla.InDoubtWait {
				broker.StartBroker(int(at) + 1)
			}
			select {
			case d := <-told:
				if (d.Partition == at) != (tt.doubt == ottla.InDoubtWait) {
					t.Errorf("it was in partition %d and is now in %d", at, d.Partition)
				}
			case <-within(t).Done():
				t.Fatal("not acknowledged")
			}
			written := int64(0)
			for p := range int32(brokers) {
				written += broker.LogEnd("t", p)
			}
			if written != tt.written {
				t.Errorf("written %d times, not %d", written, tt.written)
			}
		})
	}
}

// brokersUsed sends bursts of small batches until five brokers took some, and gives their ids. A
// client with little to send uses six of twelve: five are more than are left of those if the ones
// that must not be used are taken away.
func brokersUsed(t *testing.T, client *ottla.Client) map[int32]bool {
	t.Helper()
	ctx := within(t)
	producer := producerOf(t, client, ottla.BatchSize(1024), ottla.Compression(ottla.None))
	used := map[int32]bool{}
	// The statistics are of all clients of the process that share the pool.
	before, err := client.Stats()
	if err != nil {
		t.Fatal(err)
	}
	for len(used) < 5 {
		for range 40 {
			producer.Produce(ctx, ottla.Record{Topic: "t", Value: make([]byte, 900)}, nil)
		}
		if err := producer.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		stats, err := client.Stats()
		if err != nil {
			t.Fatal(err)
		}
		for id, records := range stats.AcknowledgedByBroker {
			if records > before.AcknowledgedByBroker[id] {
				used[id] = true
			}
		}
	}
	return used
}

func TestTheOwnRackIsUsed(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewCluster(t, 12, "a", "b")
	broker.CreateTopic("t", 24)
	for rack, first := range map[string]int32{"a": 1, "b": 2} {
		for id := range brokersUsed(t, broker.Client(ottla.Rack(rack))) {
			if id%2 != first%2 {
				t.Errorf("a client in rack %s used broker %d", rack, id)
			}
		}
	}
}

func TestOrdinalsShareBrokersOut(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewCluster(t, 12)
	broker.CreateTopic("t", 24)
	first := brokersUsed(t, broker.Client(ottla.Ordinal(0, 2)))
	for id := range brokersUsed(t, broker.Client(ottla.Ordinal(1, 2))) {
		if first[id] {
			t.Errorf("both use broker %d", id)
		}
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	ottla.Limit(t)
	client := ottlatest.NewBroker(t).Client(ottla.IdleTimeout(time.Second))
	until(t, "a connection is closed", func() bool {
		stats, err := client.Stats()
		if err != nil {
			t.Fatal(err)
		}
		closes := uint64(0)
		for _, b := range stats.Brokers {
			closes += b.IdleCloses
		}
		return closes > 0
	})
	_, err := ottla.NewClientContext(context.Background(), ottla.Brokers("127.0.0.1:1"), ottla.IdleTimeout(time.Millisecond))
	readable(t, err, ottla.ErrConfig)
}
