package ottla

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

func TestSettingsAreChecked(t *testing.T) {
	Limit(t)
	c := echoClient(t)
	producer := func(o ...ProducerOption) error { _, err := c.NewProducer(o...); return err }
	consumer := func(o ...ConsumerOption) error { _, err := c.NewConsumer(o...); return err }
	client := func(o ...ClientOption) error { _, err := NewClient(o...); return err }
	for name, err := range map[string]error{
		"no brokers":        client(),
		"empty brokers":     client(Brokers()),
		"no rack":           client(Rack("")),
		"ordinal of none":   client(Ordinal(0, 0)),
		"ordinal too large": client(Ordinal(2, 2)),
		"negative ordinal":  client(Ordinal(-1, 2)),
		"no idle timeout":   client(IdleTimeout(0)),
		"no such change":    client(OnClusterChange(7)),
		"negative linger":   producer(Linger(-1)),
		"no buffer":         producer(BufferMemory(0)),
		"negative block":    producer(MaxBlock(-1)),
		"no codec":          producer(Compression(Codec{})),
		"topic's codec":     producer(TopicCompression("t", Codec{})),
		"no topic":          producer(TopicCompression("", Zstd)),
		"partitioner":       producer(Partitioner(7)),
		"acks":              producer(Acks(-1)),
		"doubt":             producer(InDoubt(0)),
		"nothing to read":   consumer(),
		"two things":        consumer(Topics("t"), Assign(TopicPartition{Topic: "t"})),
		"start with assign": consumer(Start(Latest()), Assign(TopicPartition{Topic: "t"})),
		"the zero time":     consumer(Topics("t"), Start(AtTime(time.Time{}))),
		"-1 ms, latest":     consumer(Topics("t"), Start(AtTime(time.UnixMilli(-1)))),
		"-2 ms, earliest":   consumer(Assign(TopicPartition{Topic: "t", Start: AtTime(time.UnixMilli(-2))})),
		"negative offset":   consumer(Assign(TopicPartition{Topic: "t", Start: AtOffset(-1)})),
		"no partition":      consumer(Assign(TopicPartition{Topic: "t", Partition: -1})),
		"negative wait":     consumer(Topics("t"), MaxWait(-1)),
		"negative bytes":    consumer(Topics("t"), MinBytes(-1)),
		"no isolation":      consumer(Topics("t"), IsolationLevel(3)),
	} {
		if !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDurationsAreRoundedUpToMilliseconds(t *testing.T) {
	Limit(t)
	for d, want := range map[time.Duration]int64{
		0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Hour: 3_600_000,
		// As programs write "for ever": it must not wrap around to "not at all".
		math.MaxInt64: math.MaxInt64/1_000_000 + 1,
	} {
		if got, err := milliseconds("d", d); err != nil || got != want {
			t.Errorf("%v: %d ms, %v", d, got, err)
		}
	}
}

func TestAPlaceThatCanNotBeIsRefusedBySeek(t *testing.T) {
	Limit(t)
	c := echoClient(t)
	consumer, err := c.NewConsumer(Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []Position{AtTime(time.Time{}), AtTime(time.UnixMilli(-1)), AtOffset(-1), AtOffset(-2)} {
		if err := consumer.Seek("t", 0, to); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%+v: %v", to, err)
		}
	}
}

func TestALoginIsTheOneThatIsNamed(t *testing.T) {
	Limit(t)
	for _, tt := range []struct {
		option    ClientOption
		mechanism int32
		token     bool
	}{
		{Plain("u", "p"), capi.Plain, false},
		{ScramSHA256("u", "p"), capi.ScramSHA256, false},
		{ScramSHA512("u", "p"), capi.ScramSHA512, false},
		{ScramSHA256("u", "p", DelegationToken()), capi.ScramSHA256, true},
	} {
		var s clientSettings
		if err := tt.option.client(&s); err != nil {
			t.Fatal(err)
		}
		if got := s.ClientOptions.SASL; got == nil || got.User != "u" || got.Mechanism != tt.mechanism || got.DelegationToken != tt.token {
			t.Errorf("%+v", got)
		}
	}
}

// 0 is the default there, and "not at all" here.
func TestNotAtAllIsNotTheDefault(t *testing.T) {
	Limit(t)
	var p producerSettings
	var c consumerSettings
	if err := errors.Join(Linger(0).producer(&p), MaxWait(0).consumer(&c)); err != nil || p.LingerMs != -1 || c.MaxWaitMs != -1 {
		t.Errorf("%d and %d ms, %v", p.LingerMs, c.MaxWaitMs, err)
	}
	// Without the option nothing is said.
	if p := (producerSettings{}); p.LingerMs != 0 || p.BufferMemory != 0 {
		t.Errorf("%+v", p)
	}
}

func TestTargetsThatAreNone(t *testing.T) {
	Limit(t)
	p := newProducer(t, echoClient(t))
	for _, partition := range []int32{-1, math.MinInt32, math.MaxInt32} {
		if _, err := p.ProduceSync(within(t), Record{Topic: "t", To: ToPartition(partition)}); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("partition %d: %v", partition, err)
		}
	}
	if at, err := p.ProduceSync(within(t), Record{Topic: "t", To: ToPartition(0)}); err != nil || at.Partition != 0 {
		t.Errorf("%+v, %v", at, err)
	}
}
