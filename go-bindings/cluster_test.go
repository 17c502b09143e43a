package ottla_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// roundTrip writes n records to a topic and reads all of them back, each once.
func roundTrip(t *testing.T, client *ottla.Client, topic string, n int, options ...ottla.ProducerOption) {
	t.Helper()
	ctx := within(t)
	producer, err := client.NewProducer(options...)
	if err != nil {
		t.Fatal(err)
	}
	type place struct {
		partition int32
		offset    int64
	}
	places := make(map[place]int)
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1+i%3000) }
	for i := range n {
		record := ottla.Record{
			Topic: topic, Key: []byte(fmt.Sprint(i)), Value: value(i),
			Headers: []ottla.Header{{Name: "n", Value: nil}, {Name: "n", Value: []byte{}}},
		}
		producer.Produce(ctx, record, func(d ottla.Delivery, err error) {
			if err != nil {
				t.Errorf("record %d: %v", i, err)
				return
			}
			if other, taken := places[place{d.Partition, d.Offset}]; taken {
				t.Errorf("records %d and %d are both at %+v", i, other, d)
			}
			places[place{d.Partition, d.Offset}] = i
		})
	}
	if err := producer.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if len(places) != n {
		t.Fatalf("%d records have a place, want %d", len(places), n)
	}
	consumer, err := client.NewConsumer(ottla.Topics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumer.Close() }()
	for record, err := range consumer.Records(ctx) {
		if err != nil {
			t.Fatalf("%d records are left: %v", len(places), err)
		}
		at := place{record.Partition, record.Offset}
		i, known := places[at]
		if !known {
			t.Fatalf("a record at %+v that was not written, or came twice", at)
		}
		delete(places, at)
		if string(record.Key) != fmt.Sprint(i) || !bytes.Equal(record.Value, value(i)) {
			t.Fatalf("record %d at %+v has other bytes", i, at)
		}
		if h := record.Headers; len(h) != 2 || h[0].Value != nil || h[1].Value == nil || h[1].Name != "n" {
			t.Fatalf("record %d has headers %v", i, h)
		}
		if len(places) == 0 {
			break
		}
	}
}

func TestRoundTrip(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewCluster(t, 3)
	client := broker.Client()
	for _, codec := range allCodecs {
		name := codec.String()
		t.Run(name, func(t *testing.T) {
			broker.CreateTopic(name, 6)
			roundTrip(t, client, name, 5000, ottla.Compression(codec))
		})
	}
}

func TestLittleMemoryWaitsAndLosesNothing(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewBroker(t)
	broker.CreateTopic("small", 3)
	roundTrip(t, broker.Client(), "small", 3000,
		ottla.BufferMemory(1<<20), ottla.BatchSize(16<<10), ottla.MaxRecordSize(8<<10))
}

func TestProduceSyncToAPartition(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewBroker(t)
	client, ctx := broker.Client(), within(t)
	if err := client.CreateTopic(ctx, "made", 3, 1); err != nil {
		t.Fatal(err)
	}
	if err := client.CreateTopic(ctx, "made", 3, 1); !errors.Is(err, ottla.ErrTopicExists) {
		t.Errorf("created again: %v", err)
	}
	producer, err := client.NewProducer(ottla.Linger(0))
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(3) {
		d, err := producer.ProduceSync(ctx, ottla.Record{Topic: "made", To: ottla.ToPartition(2)})
		if err != nil || d.Partition != 2 || d.Offset != i || d.Topic != "made" {
			t.Fatalf("record %d: %+v, %v", i, d, err)
		}
	}
	_, err = producer.ProduceSync(ctx, ottla.Record{Topic: "made", To: ottla.ToPartition(7)})
	if !errors.Is(err, ottla.ErrUnknownPartition) {
		t.Errorf("partition 7 of 3: %v", err)
	}
}

func TestUnknownTopic(t *testing.T) {
	ottla.Limit(t)
	client, ctx := ottlatest.NewBroker(t).Client(), within(t)
	producer, err := client.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	_, err = producer.ProduceSync(ctx, ottla.Record{Topic: "nowhere", Value: []byte("v")})
	readable(t, err, ottla.ErrUnknownTopic)
	if ottla.MaybeWritten(err) {
		t.Errorf("maybe written: %v", err)
	}
	var e *ottla.Error
	if errors.As(err, &e); e.BrokerCode != 3 {
		t.Errorf("the broker's code is %d", e.BrokerCode)
	}
}

func TestRecordTooLarge(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewBroker(t)
	broker.CreateTopic("t", 1)
	client, ctx := broker.Client(), within(t)
	producer, err := client.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	_, err = producer.ProduceSync(ctx, ottla.Record{Topic: "t", Value: make([]byte, 2<<20)})
	readable(t, err, ottla.ErrRecordTooLarge)
	if _, err = producer.ProduceSync(ctx, ottla.Record{Topic: "t", Value: []byte("v")}); err != nil {
		t.Errorf("the next record: %v", err)
	}
}

func TestUseAfterCloseOfACluster(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewBroker(t)
	broker.CreateTopic("t", 1)
	client, err := ottla.NewClient(ottla.Brokers(broker.Bootstrap()))
	if err != nil {
		t.Fatal(err)
	}
	producer, err := client.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := client.NewConsumer(ottla.Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = producer.ProduceSync(within(t), ottla.Record{Topic: "t"})
	readable(t, err, ottla.ErrClosed)
	_, err = consumer.Next(within(t))
	readable(t, err, ottla.ErrClosed)
}

func TestCloseDeliversWhatLingers(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewBroker(t)
	broker.CreateTopic("t", 2)
	client, err := ottla.NewClient(ottla.Brokers(broker.Bootstrap()))
	if err != nil {
		t.Fatal(err)
	}
	producer, err := client.NewProducer(ottla.Linger(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for range 100 {
		producer.Produce(within(t), ottla.Record{Topic: "t", Value: []byte("v")}, func(_ ottla.Delivery, err error) {
			if err != nil {
				t.Error(err)
			}
			told++
		})
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if told != 100 {
		t.Errorf("%d of 100 were told", told)
	}
}

// namesBoth: the error of a change of clusters, which names the old one and the new one.
func namesBoth(t *testing.T, err error, maybeWritten bool) {
	t.Helper()
	readable(t, err, ottla.ErrClusterChanged)
	if text := err.Error(); !strings.Contains(text, "first-cluster") || !strings.Contains(text, "second-cluster") {
		t.Errorf("does not name both: %v", err)
	}
	if ottla.MaybeWritten(err) != maybeWritten {
		t.Errorf("maybe written: %v, want %v: %v", !maybeWritten, maybeWritten, err)
	}
}

func TestAnotherClusterAtTheSameAddresses(t *testing.T) {
	ottla.Limit(t)
	for _, change := range []ottla.ClusterChange{ottla.ClusterChangeFail, ottla.ClusterChangeAccept} {
		t.Run(fmt.Sprint(change), func(t *testing.T) {
			const brokers = 2
			ctx := within(t)
			broker := ottlatest.NewCluster(t, brokers)
			broker.Replace("first-cluster")
			broker.CreateReplicatedTopic("t", 1, brokers)
			client := broker.Client(ottla.OnClusterChange(change))
			producer := producerOf(t, client)
			deliver(t, producer, ottla.Record{Topic: "t", Value: []byte("old")})
			consumer, err := client.NewConsumer(ottla.Topics("t"))
			if err != nil {
				t.Fatal(err)
			}
			next := func() (value string, err error) {
				for record, err := range consumer.Records(ctx) {
					if err != nil {
						return "", err
					}
					return string(record.Value), nil
				}
				return "", nil
			}
			if value, err := next(); value != "old" || err != nil {
				t.Fatalf("%q, %v", value, err)
			}
			broker.SetReplicaDelay(-1)
			doubtful := make(chan error, 1)
			producer.Produce(ctx, ottla.Record{Topic: "t", Value: []byte("doubtful")}, func(_ ottla.Delivery, err error) { doubtful <- err })
			until(t, "it is written, and not acknowledged", func() bool { return broker.LogEnd("t", 0) == 2 })

			// The new one has a topic of the same name by the time it listens.
			for id := 1; id <= brokers; id++ {
				broker.StopBroker(id, false)
			}
			broker.Replace("second-cluster")
			broker.CreateReplicatedTopic("t", 1, brokers)
			broker.SetReplicaDelay(0)
			for id := 1; id <= brokers; id++ {
				broker.StartBroker(id)
			}
			select {
			case err := <-doubtful:
				namesBoth(t, err, true)
			case <-ctx.Done():
				t.Fatal("what is in doubt has no end")
			}
			at, err := producer.ProduceSync(ctx, ottla.Record{Topic: "t", Value: []byte("new")})
			value, readErr := next()
			if change == ottla.ClusterChangeAccept {
				if err != nil || at.Offset != 0 || readErr != nil || value != "new" {
					t.Errorf("gone on with: %+v, %v; read %q, %v", at, err, value, readErr)
				}
				return
			}
			namesBoth(t, err, false)
			namesBoth(t, readErr, false)
			namesBoth(t, client.CreateTopic(ctx, "u", 1, 1), false)
			if n := broker.LogEnd("t", 0); n != 0 {
				t.Errorf("%d records went to the new cluster", n)
			}
		})
	}
}

// readable: a typed error of that code, with a message and advice.
func readable(t *testing.T, err error, codes ...ottla.Code) {
	t.Helper()
	var e *ottla.Error
	if !errors.As(err, &e) {
		t.Fatalf("not an *ottla.Error: %v", err)
	}
	for _, code := range codes {
		if errors.Is(err, code) {
			if len(e.Message) < 10 || e.Advice == "" || !strings.Contains(err.Error(), e.Advice) {
				t.Errorf("not readable: %v", err)
			}
			return
		}
	}
	t.Errorf("%v is none of %v", err, codes)
}

func TestNobodyThere(t *testing.T) {
	ottla.Limit(t)
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	nobody := ottla.NobodyListens(t)
	for name, tt := range map[string]struct {
		address string
		codes   []ottla.Code
	}{
		"nothing listens": {nobody, []ottla.Code{ottla.ErrConnect}},
		"wrong host":      {"name.invalid:9092", []ottla.Code{ottla.ErrResolve}},
		"HTTP":            {web.Listener.Addr().String(), []ottla.Code{ottla.ErrNotKafka}},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := ottla.NewClientContext(within(t), ottla.Brokers(tt.address), ottla.ConnectTimeout(2*time.Second))
			if err == nil {
				_ = client.Close()
				t.Fatal("connected")
			}
			readable(t, err, tt.codes...)
			var e *ottla.Error
			if errors.As(err, &e); e.Retriable != (name != "HTTP") {
				t.Errorf("retriable: %v: %v", e.Retriable, err)
			}
		})
	}
}

func TestAConnectThatIsGivenUp(t *testing.T) {
	ottla.Limit(t)
	// Accepts and never answers.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t))
	accepted := make(chan net.Conn, 1)
	go func() {
		defer close(accepted)
		if conn, err := listener.Accept(); err == nil {
			accepted <- conn // Open for as long as the test: a peer that hangs up is another one.
		}
		cancel() // Now that the client waits for it.
	}()
	defer func() {
		_ = listener.Close()
		if conn := <-accepted; conn != nil {
			_ = conn.Close()
		}
	}()
	_, err = ottla.NewClientContext(ctx, ottla.Brokers(listener.Addr().String()))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}
