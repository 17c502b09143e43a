// Quickstart writes records to a topic while it reads them back, and checks that every one came
// back exactly once.
//
//	go run ./quickstart [-bootstrap host:9092] [-records 1000000]
//
// Without -bootstrap it starts a cluster of three brokers in its own process.
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

const partitions = 12

func main() {
	log.SetFlags(0)
	bootstrap := flag.String("bootstrap", "", "brokers, host:port; default: an embedded cluster")
	records := flag.Int("records", 1_000_000, "how many records")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *bootstrap, *records); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, bootstrap string, records int) error {
	if bootstrap == "" {
		broker, err := ottla.StartEmbeddedBroker(3)
		if err != nil {
			return err
		}
		defer broker.Close()
		bootstrap = broker.Bootstrap()
		fmt.Println("an embedded cluster of three brokers at", bootstrap)
	}
	client, err := ottla.NewClientContext(ctx, ottla.Brokers(bootstrap))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	topic := fmt.Sprintf("quickstart-%d", time.Now().UnixMilli())
	if err := client.CreateTopic(ctx, topic, partitions, -1); err != nil {
		return err
	}

	start := time.Now()
	read := make(chan error, 1)
	reading, giveUp := context.WithCancel(ctx)
	defer giveUp()
	shares := make([]int, partitions)
	go func() { read <- consume(reading, client, topic, records, shares) }()
	if err := produce(ctx, client, topic, records); err != nil {
		return err
	}
	written := time.Since(start)
	if err := <-read; err != nil {
		return err
	}
	rate := func(d time.Duration) int { return int(float64(records) / d.Seconds()) }
	fmt.Printf("written and acknowledged: %d records in %v, %d a second\n", records, written.Round(time.Millisecond), rate(written))
	all := time.Since(start)
	fmt.Printf("read back, each exactly once: in %v, %d a second\n", all.Round(time.Millisecond), rate(all))
	fmt.Println("records in each partition:", shares)
	stats, err := client.Stats()
	if err != nil {
		return err
	}
	fmt.Printf("requests of all kinds: %.1f for 1,000 records\n", stats.RequestsPer1000Messages)
	fmt.Println("bad stuff:", stats.BadStuff)
	return nil
}

func produce(ctx context.Context, client *ottla.Client, topic string, records int) error {
	producer, err := client.NewProducer()
	if err != nil {
		return err
	}
	value := make([]byte, 100)
	for i := range records {
		// Reused at once: Produce copies.
		binary.LittleEndian.PutUint64(value, uint64(i))
		producer.Produce(ctx, ottla.Record{Topic: topic, Value: value}, nil)
	}
	// Tells also of records that failed: they had no callback.
	return producer.Flush(ctx)
}

func consume(ctx context.Context, client *ottla.Client, topic string, records int, shares []int) error {
	consumer, err := client.NewConsumer(ottla.Topics(topic))
	if err != nil {
		return err
	}
	defer func() { _ = consumer.Close() }()
	seen := make([]bool, records)
	left := records
	for record, err := range consumer.Records(ctx) {
		if err != nil {
			return err
		}
		if len(record.Value) != 100 {
			return fmt.Errorf("a value of %d bytes", len(record.Value))
		}
		i := binary.LittleEndian.Uint64(record.Value)
		if i >= uint64(records) || seen[i] {
			return fmt.Errorf("record %d came twice, or was never written", i)
		}
		seen[i] = true
		if int(record.Partition) < len(shares) {
			shares[record.Partition]++
		}
		if left--; left == 0 {
			break
		}
	}
	return nil
}
