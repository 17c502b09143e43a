package ottla

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A callback that takes its time holds up what its own producer tells, and nothing of another one.
func TestACallbackThatBlocksHoldsUpNoOtherProducersFlush(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	slow, other := newProducer(t, c), newProducer(t, c)
	reached, goes := make(chan struct{}), make(chan struct{})
	slow.Produce(ctx, Record{Topic: "t"}, func(Delivery, error) {
		close(reached)
		<-goes
	})
	receive(t, reached, "the callback that blocks")
	told := make(chan error, 1)
	other.Produce(ctx, Record{Topic: "t"}, func(_ Delivery, err error) { told <- err })
	if err := other.Flush(ctx); err != nil {
		t.Error(err)
	}
	if err := receive(t, told, "the other callback"); err != nil {
		t.Error(err)
	}
	close(goes)
	if err := slow.Flush(ctx); err != nil {
		t.Error(err)
	}
}

// What was not closed is ended once nobody refers to it any more, and that is said; goroutines are not left.
func TestAClientThatIsForgottenGoesWithAWarning(t *testing.T) {
	Limit(t)
	ctx := within(t)
	broker, err := StartEmbeddedBroker(1)
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	if err := broker.CreateTopic("t", 1, 1); err != nil {
		t.Fatal(err)
	}
	said := captureDefaultLog(t)
	before := runtime.NumGoroutine()
	forget := func() {
		c, err := NewClient(Brokers(broker.Bootstrap()))
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.ProduceSync(ctx, Record{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		told := make(chan error, 1)
		p.Produce(ctx, Record{Topic: "t"}, func(_ Delivery, err error) { told <- err })
		// Nobody but the engine knows of it now.
		p, c = nil, nil
		runtime.GC()
		if err := receive(t, told, "what is outstanding"); err != nil {
			t.Errorf("a record of a client that nobody refers to: %v", err)
		}
	}
	forget()
	for (runtime.NumGoroutine() > before || !strings.Contains(said(), "was not closed")) && ctx.Err() == nil {
		runtime.GC()
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	if !strings.Contains(said(), "was not closed") {
		t.Errorf("nothing is said of it: %s", said())
	}
}

// captureDefaultLog has slog's default logger write where the result looks.
func captureDefaultLog(t *testing.T) func() string {
	t.Helper()
	var mu sync.Mutex
	var out bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(p)
	}), nil)))
	t.Cleanup(func() { slog.SetDefault(old) })
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return out.String()
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// The time was over because a broker is not reached: that is what helps, not "context deadline exceeded" alone.
func TestAContextThatEndsSaysWhatWasInTheWay(t *testing.T) {
	Limit(t)
	broker, err := StartEmbeddedBroker(1)
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	if err := broker.CreateTopic("t", 1, 1); err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(Brokers(broker.Bootstrap()))
	if err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, c)
	if _, err := p.ProduceSync(within(t), Record{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	if err := broker.StopBroker(1, false); err != nil {
		t.Fatal(err)
	}
	p.Produce(within(t), Record{Topic: "t"}, nil)
	for c.api.InTheWay() == "" && within(t).Err() == nil {
		runtime.Gosched()
	}
	gone, cancel := context.WithDeadline(context.Background(), time.Now())
	defer cancel()
	err = p.Flush(gone)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(e.Message, broker.Bootstrap()) {
		t.Errorf("a flush without time: %v", err)
	}
	// Nothing waits for the broker that is gone.
	_ = c.Shutdown(gone)
}

func TestAClusterIsTold(t *testing.T) {
	Limit(t)
	broker, err := StartEmbeddedBroker(2, "rack-a")
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	if err := broker.CreateTopic("t", 3, 1); err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(Brokers(broker.Addresses()...))
	if err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, c)
	if _, err := p.ProduceSync(within(t), Record{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	cluster, err := c.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	topic := cluster.Topics["t"]
	if cluster.ID == "" || len(cluster.Brokers) != 2 || len(topic.Partitions) != 3 || topic.Error != "" {
		t.Errorf("%+v", cluster)
	}
	for i, partition := range topic.Partitions {
		if want := int32(i%2 + 1); partition.Leader != want {
			t.Errorf("partition %d is led by %d, not %d", i, partition.Leader, want)
		}
	}
	for id, one := range cluster.Brokers {
		if one.Rack != "rack-a" || !strings.Contains(broker.Bootstrap(), one.Address) {
			t.Errorf("broker %d: %+v", id, one)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Cluster(); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed client: %v", err)
	}
}

func TestManyValuesAreRecords(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, BufferMemory(leastMemory), MaxRecordSize(1000))
	values := make([][]byte, 20_000)
	for i := range values {
		values[i] = bytes.Repeat([]byte{byte(i)}, i%200)
	}
	values[7] = nil
	taken, err := p.ProduceMany(ctx, "t", values)
	if err != nil || taken != len(values) {
		t.Fatalf("%d taken: %v", taken, err)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, err := c.NewConsumer(Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for record, err := range consumer.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		want := values[read]
		if !bytes.Equal(record.Value, want) || (record.Value == nil) != (want == nil) || record.Key != nil {
			t.Fatalf("record %d is %+v", read, record)
		}
		if read++; read == len(values) {
			break
		}
	}
	// What does not fit ends the call, and those before it are on their way.
	taken, err = p.ProduceMany(ctx, "t", [][]byte{{1}, make([]byte, 1001), {2}})
	if taken != 1 || !errors.Is(err, ErrRecordTooLarge) {
		t.Errorf("%d taken: %v", taken, err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if taken, err := p.ProduceMany(gone, "t", [][]byte{{1}}); taken != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d taken: %v", taken, err)
	}
	if taken, err := p.ProduceMany(ctx, "", [][]byte{{1}}); taken != 0 || !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("%d taken: %v", taken, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if taken, err := p.ProduceMany(ctx, "t", [][]byte{{1}}); taken != 0 || !errors.Is(err, ErrClosed) {
		t.Errorf("%d taken by a closed producer: %v", taken, err)
	}
}
