package ottla_test

import (
	"context"
	"fmt"
	"log"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

func Example() {
	ctx := context.Background()
	client, err := ottla.NewClient(ottla.Echo()) // Or ottla.Brokers("localhost:9092").
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()

	producer, err := client.NewProducer()
	if err != nil {
		log.Fatal(err)
	}
	for _, word := range []string{"one", "two"} {
		producer.Produce(ctx, ottla.Record{Topic: "words", Value: []byte(word)}, func(d ottla.Delivery, err error) {
			fmt.Println("written at", d.Offset, err)
		})
	}
	if err := producer.Flush(ctx); err != nil {
		log.Fatal(err)
	}

	consumer, err := client.NewConsumer(ottla.Topics("words"))
	if err != nil {
		log.Fatal(err)
	}
	for record, err := range consumer.Records(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(record.Value))
		if record.Offset == 1 {
			break
		}
	}
	// Output:
	// written at 0 <nil>
	// written at 1 <nil>
	// one
	// two
}
