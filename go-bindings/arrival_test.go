package ottla_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

// Every setting arrives under its own name and in its own unit: what is at the edge of its range is taken,
// what is beyond is refused by that name.
func TestEverySettingArrivesUnderItsName(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewBroker(t)
	broker.CreateTopic("t", 1)
	client := broker.Client()
	const ms, day = time.Millisecond, 24 * time.Hour
	check := func(name string, taken, refused []error) {
		t.Helper()
		for i, err := range taken {
			if err != nil {
				t.Errorf("%s, value %d: %v", name, i, err)
			}
		}
		for i, err := range refused {
			var e *ottla.Error
			if !errors.Is(err, ottla.ErrConfig) || !errors.As(err, &e) || !strings.HasPrefix(e.Message, name+" is ") {
				t.Errorf("%s, wrong value %d: %v", name, i, err)
			}
		}
	}
	connect := func(option ottla.ClientOption) error {
		client, err := ottla.NewClientContext(context.Background(), ottla.Brokers(broker.Bootstrap()), option)
		if err == nil {
			err = client.Close()
		}
		return err
	}
	produce := func(option ottla.ProducerOption) error {
		producer, err := client.NewProducer(option)
		if err == nil {
			err = producer.Close()
		}
		return err
	}
	consume := func(option ottla.ConsumerOption) error {
		consumer, err := client.NewConsumer(ottla.Topics("t"), option)
		if err == nil {
			err = consumer.Close()
		}
		return err
	}
	type errs = []error
	check("connect_timeout", errs{connect(ottla.ConnectTimeout(time.Hour))}, errs{connect(ottla.ConnectTimeout(time.Hour + ms))})
	check("request_timeout", errs{connect(ottla.RequestTimeout(time.Hour))},
		errs{connect(ottla.RequestTimeout(time.Hour + ms)), connect(ottla.RequestTimeout(99 * ms))})
	check("idle_timeout", errs{connect(ottla.IdleTimeout(day))}, errs{connect(ottla.IdleTimeout(day + ms)), connect(ottla.IdleTimeout(999 * ms))})
	check("linger", errs{produce(ottla.Linger(0)), produce(ottla.Linger(time.Minute))}, errs{produce(ottla.Linger(time.Minute + ms))})
	check("delivery_timeout", errs{produce(ottla.DeliveryTimeout(10 * ms)), produce(ottla.DeliveryTimeout(day))},
		errs{produce(ottla.DeliveryTimeout(9 * ms)), produce(ottla.DeliveryTimeout(day + ms))})
	check("MaxBlock", errs{produce(ottla.MaxBlock(0)), produce(ottla.MaxBlock(day))}, errs{produce(ottla.MaxBlock(day + 1)), produce(ottla.MaxBlock(-1))})
	check("batch_size", errs{produce(ottla.BatchSize(1 << 10)), produce(ottla.BatchSize(16 << 20))},
		errs{produce(ottla.BatchSize(1<<10 - 1)), produce(ottla.BatchSize(16<<20 + 1))})
	check("max_record_size", errs{produce(ottla.MaxRecordSize(1)), produce(ottla.MaxRecordSize(32 << 20))},
		errs{produce(ottla.MaxRecordSize(100<<20 + 1))})
	check("buffer_memory", errs{produce(ottla.BufferMemory(1 << 20)), consume(ottla.BufferMemory(64 << 10))},
		errs{produce(ottla.BufferMemory(1<<20 - 1)), produce(ottla.BufferMemory(1 << 41)), consume(ottla.BufferMemory(64<<10 - 1))})
	check("max_wait", errs{consume(ottla.MaxWait(0)), consume(ottla.MaxWait(29 * time.Second))}, errs{consume(ottla.MaxWait(5*time.Minute + ms))})
	check("min_bytes", errs{consume(ottla.MinBytes(1)), consume(ottla.MinBytes(1 << 30))}, errs{consume(ottla.MinBytes(1<<30 + 1))})
	check("max_bytes", errs{consume(ottla.MaxBytes(1 << 10)), consume(ottla.MaxBytes(100 << 20))},
		errs{consume(ottla.MaxBytes(1<<10 - 1)), consume(ottla.MaxBytes(100<<20 + 1))})
	check("max_partition_bytes", errs{consume(ottla.MaxPartitionBytes(1 << 10)), consume(ottla.MaxPartitionBytes(100 << 20))},
		errs{consume(ottla.MaxPartitionBytes(1<<10 - 1)), consume(ottla.MaxPartitionBytes(100<<20 + 1))})
}

// firstWords makes a client and gives what it says first to a peer that never answers.
func firstWords(t *testing.T, options ...ottla.ClientOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	words := make(chan string, 1)
	go func() {
		said := make([]byte, 256)
		n := 0
		if conn, err := listener.Accept(); err == nil {
			n, _ = conn.Read(said)
			defer func() { _ = conn.Close() }()
		}
		words <- string(said[:n])
		cancel()
	}()
	_, err = ottla.NewClientContext(ctx, append(options, ottla.Brokers(listener.Addr().String()), ottla.Logger(nil))...)
	if err == nil {
		t.Error("connected to a peer that says nothing")
	}
	_ = listener.Close()
	return <-words
}

func TestWhatBrokersAreTold(t *testing.T) {
	ottla.Limit(t)
	// Behind its length; the software's is one more.
	if said := firstWords(t, ottla.ClientID("shop-7")); !strings.Contains(said, "\x06shop-7") || !strings.Contains(said, "\x09ottla-go") {
		t.Errorf("%q", said)
	}
	if said := firstWords(t); !strings.Contains(said, "\x05ottla") || !strings.Contains(said, "\x09ottla-go") {
		t.Errorf("by default: %q", said)
	}
}

func TestReadingStartsWhereItIsSaid(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewBroker(t)
	broker.CreateTopic("t", 1)
	client := broker.Client()
	producer := producerOf(t, client)
	for second := range int64(4) {
		deliver(t, producer, ottla.Record{Topic: "t", Timestamp: time.UnixMilli(second * 1000)})
	}
	for name, tt := range map[string]struct {
		at   ottla.Position
		want int64
	}{
		"earliest": {ottla.Earliest(), 0}, "offset": {ottla.AtOffset(3), 3}, "time": {ottla.AtTime(time.UnixMilli(1001)), 2},
		"zero": {ottla.Position{}, 0},
	} {
		for how, option := range map[string][]ottla.ConsumerOption{
			"topics": {ottla.Topics("t"), ottla.Start(tt.at)},
			"assign": {ottla.Assign(ottla.TopicPartition{Topic: "t", Start: tt.at})},
			"seek":   {ottla.Topics("t"), ottla.Start(ottla.AtOffset(1))},
		} {
			// A fetch that waits for more is not given up for a seek.
			consumer, err := client.NewConsumer(append(option, ottla.MaxWait(time.Millisecond))...)
			if err != nil {
				t.Fatal(err)
			}
			if how == "seek" {
				first := next(t, consumer)
				if first.Offset != 1 {
					t.Errorf("AtOffset(1) starts at %d", first.Offset)
				}
				if err := consumer.Seek("t", 0, tt.at); err != nil {
					t.Fatal(err)
				}
			}
			if got := next(t, consumer); got.Offset != tt.want {
				t.Errorf("%s by %s starts at %d, not %d", name, how, got.Offset, tt.want)
			}
			_ = consumer.Close()
		}
	}
	// The end is where it was asked for: what comes until then is passed over.
	consumer, err := client.NewConsumer(ottla.Topics("t"), ottla.Start(ottla.Latest()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			_, _ = producer.ProduceSync(ctx, ottla.Record{Topic: "t"})
		}
	}()
	if got := next(t, consumer); got.Offset < 4 {
		t.Errorf("the latest is at %d", got.Offset)
	}
}

// next is one record; the loop over them is left then.
func next(t *testing.T, consumer *ottla.Consumer) *ottla.Record {
	t.Helper()
	for record, err := range consumer.Records(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		return &record
	}
	t.Fatal("no record")
	return nil
}

// An error that is not fatal is told, and the loop goes on.
func TestALoopGoesOnBehindAnError(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewBroker(t)
	broker.CreateTopic("t", 1)
	client := broker.Client()
	// There is nothing yet, and nothing is read until a seek.
	consumer, err := client.NewConsumer(ottla.Assign(ottla.TopicPartition{Topic: "t", Start: ottla.AtOffset(7)}))
	if err != nil {
		t.Fatal(err)
	}
	producer := producerOf(t, client)
	failures, records := 0, 0
	for _, err := range consumer.Records(within(t)) {
		if err == nil {
			records++
			break
		}
		readable(t, err, ottla.ErrOffsetOutOfRange)
		if failures++; failures > 1 {
			break
		}
		deliver(t, producer, ottla.Record{Topic: "t"})
		if err := consumer.Seek("t", 0, ottla.Earliest()); err != nil {
			t.Fatal(err)
		}
	}
	if failures != 1 || records != 1 {
		t.Errorf("%d records behind %d errors", records, failures)
	}
}
