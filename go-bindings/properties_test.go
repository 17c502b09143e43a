package ottla

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestPropertiesOfOtherClientsAreTaken(t *testing.T) {
	Limit(t)
	all := Properties(map[string]string{
		"bootstrap.servers": "a:1,b:2", "client.id": "c", "client.rack": "r",
		"request.timeout.ms": "5000", "connections.max.idle.ms": "60000", "security.protocol": "PLAINTEXT",
	})
	var client clientSettings
	if err := all.client(&client); err != nil {
		t.Fatal(err)
	}
	if o := client.ClientOptions; o.Bootstrap != "a:1,b:2" || o.ClientID != "c" || o.Rack != "r" || o.RequestTimeoutMs != 5000 || o.IdleTimeoutMs != 60000 {
		t.Errorf("client: %+v", o)
	}
	var producer producerSettings
	err := Properties(map[string]string{
		"client.id": "c", "acks": "1", "linger.ms": "0.5", "batch.size": "4096", "buffer.memory": "8388608",
		"compression.type": "zstd", "compression.level": "9", "delivery.timeout.ms": "1000",
		"max.block.ms": "10", "max.request.size": "2000000", "partitioner": "murmur2_random", "retries": "2147483647",
	}).producer(&producer)
	if err != nil {
		t.Fatal(err)
	}
	o := producer.ProducerOptions
	if o.Acks != int32(AcksLeader) || o.LingerMs != 1 || o.BatchSize != 4096 || o.BufferMemory != 8<<20 ||
		o.Compression != Zstd.kind || o.CompressionLevel != 9 || o.DeliveryTimeoutMs != 1000 || o.MaxRecordSize != 2_000_000 ||
		o.Partitioner != int32(KeyHash) || producer.maxBlock != 10*time.Millisecond || producer.deliveryTimeout != time.Second {
		t.Errorf("producer: %+v", producer)
	}
	for word, acks := range map[string]Acknowledgement{"all": AcksAll, "-1": AcksAll, "1": AcksLeader, "0": AcksNone} {
		var s producerSettings
		if err := Properties(map[string]string{"acks": word}).producer(&s); err != nil || s.Acks != int32(acks) {
			t.Errorf("acks %s: %d, %v", word, s.Acks, err)
		}
	}
	var consumer consumerSettings
	err = Properties(map[string]string{
		"client.id": "c", "auto.offset.reset": "latest", "fetch.max.wait.ms": "0", "fetch.min.bytes": "7",
		"fetch.max.bytes": "2000000", "max.partition.fetch.bytes": "1000000", "check.crcs": "true",
		"queued.max.messages.kbytes": "2048", "isolation.level": "read_committed",
	}).consumer(&consumer)
	if err != nil {
		t.Fatal(err)
	}
	c := consumer.ConsumerOptions
	if c.Isolation != int32(ReadCommitted) || c.Start != Latest().kind || c.MaxWaitMs != -1 || c.MinBytes != 7 || c.MaxBytes != 2_000_000 || c.MaxPartitionBytes != 1_000_000 || c.BufferBytes != 2<<20 {
		t.Errorf("consumer: %+v", c)
	}
}

func TestPropertiesThatAreNotTakenAreAnsweredWithOurs(t *testing.T) {
	Limit(t)
	c := echoClient(t)
	producer := func(name, value string) error {
		_, err := c.NewProducer(Properties(map[string]string{name: value}))
		return err
	}
	consumer := func(name, value string) error {
		_, err := c.NewConsumer(Topics("t"), Properties(map[string]string{name: value}))
		return err
	}
	client := func(name, value string) error {
		_, err := NewClient(Properties(map[string]string{name: value}))
		return err
	}
	for _, tt := range []struct {
		err  error
		said string
	}{
		{client("boostrap.servers", "a:1"), "there is bootstrap.servers"},
		{client("sasl.password", "hunter2"), "'sasl.password'"},
		{client("client.id", "c"), "no brokers are given"},
		{client("request.timeout.ms", "-1"), "not a number of milliseconds"},
		{client("request.timeout.ms", "0"), "RequestTimeout is 0s"},
		{client("nul\x00", "0"), "NUL"},
		{producer("retries", "5"), "not needed"},
		{producer("group.id", "g"), "it is a consumer's"},
		{producer("linger.ms", "-1"), "not a number of milliseconds"},
		{producer("batch.size", "-5"), "not a number of bytes"},
		{producer("acks", "2"), "is not all, -1, 1 or 0"},
		{producer("value.serializer", "json"), "value.serializer"},
		{consumer("group.id", "g"), "group"},
		{consumer("check.crcs", "false"), "always verified"},
	} {
		if !errors.Is(tt.err, ErrConfig) || !strings.Contains(tt.err.Error(), tt.said) || strings.Contains(tt.err.Error(), "hunter2") {
			t.Errorf("%q: %v", tt.said, tt.err)
		}
	}
	// The later of two counts.
	var s producerSettings
	for _, o := range []ProducerOption{Linger(time.Second), Properties(map[string]string{"linger.ms": "20"}), BatchSize(2048)} {
		if err := o.producer(&s); err != nil {
			t.Fatal(err)
		}
	}
	if s.LingerMs != 20 || s.BatchSize != 2048 {
		t.Errorf("%+v", s)
	}
}

func TestAStartIsNotOverruledByProperties(t *testing.T) {
	Limit(t)
	latest := Properties(map[string]string{"auto.offset.reset": "latest"})
	for _, tt := range []struct {
		options []ConsumerOption
		kind    int32
	}{
		{[]ConsumerOption{latest}, Latest().kind},
		{[]ConsumerOption{Start(Earliest()), latest}, Earliest().kind},
		{[]ConsumerOption{latest, Start(Earliest())}, Earliest().kind},
	} {
		var s consumerSettings
		for _, o := range tt.options {
			if err := o.consumer(&s); err != nil {
				t.Fatal(err)
			}
		}
		if s.ConsumerOptions.Start != tt.kind {
			t.Errorf("%d, not %d", s.ConsumerOptions.Start, tt.kind)
		}
	}
}
