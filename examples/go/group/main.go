// Group shares the records of a topic among members of a consumer group: two in this process, and as many more as are
// started elsewhere.
//
//	go run ./group [-bootstrap host:9092] [-group billing] [-topic events]
//
// Without -bootstrap it starts a cluster in its own process, writes a hundred records there, and ends when all are
// handled. Otherwise it reads until it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

func main() {
	log.SetFlags(0)
	bootstrap := flag.String("bootstrap", "", "brokers, host:port; default: an embedded cluster")
	group := flag.String("group", "billing", "the group")
	topic := flag.String("topic", "events", "the topic")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *bootstrap, *group, *topic); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, bootstrap, group, topic string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var left atomic.Int64
	if bootstrap == "" {
		broker, err := ottla.StartEmbeddedBroker(1)
		if err != nil {
			return err
		}
		defer broker.Close()
		bootstrap = broker.Bootstrap()
		if err := write(ctx, bootstrap, topic, 100); err != nil {
			return err
		}
		left.Store(100)
	}
	client, err := ottla.NewClientContext(ctx, ottla.Brokers(bootstrap))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	var members sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		members.Add(1)
		go func() {
			defer members.Done()
			errs[i] = handle(ctx, client, group, topic, func(record *ottla.Record) {
				fmt.Printf("member %d: %s[%d] %d: %s\n", i, record.Topic, record.Partition, record.Offset, record.Value)
				if left.Add(-1) == 0 {
					stop()
				}
			})
		}()
	}
	members.Wait()
	return errors.Join(errs...)
}

// handle reads as one member. A record is done when the loop asks for the next one: what a failure or a crash leaves is
// read again by whoever has the partition then.
func handle(ctx context.Context, client *ottla.Client, group, topic string, do func(*ottla.Record)) error {
	consumer, err := client.NewConsumer(ottla.Group(group), ottla.Topics(topic))
	if err != nil {
		return err
	}
	for record, err := range consumer.Records(ctx) {
		switch {
		case ctx.Err() != nil:
			// Interrupted. Commits what is done, and leaves, so that others have the partitions at once.
			return consumer.Close()
		case err != nil:
			log.Print(err) // Tried again as long as the loop goes on.
		default:
			do(&record)
		}
	}
	return consumer.Close()
}

func write(ctx context.Context, bootstrap, topic string, records int) error {
	client, err := ottla.NewClientContext(ctx, ottla.Brokers(bootstrap))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	if err := client.CreateTopic(ctx, topic, 4, 1); err != nil {
		return err
	}
	producer, err := client.NewProducer()
	if err != nil {
		return err
	}
	for i := range records {
		target := ottla.ToPartition(int32(i % 4))
		producer.Produce(ctx, ottla.Record{Topic: topic, Value: fmt.Appendf(nil, "%d", i), To: target}, nil)
	}
	return producer.Flush(ctx)
}
