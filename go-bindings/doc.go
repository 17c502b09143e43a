// Package ottla is a Kafka client: the Ottla engine for Go.
//
//	client, err := ottla.NewClient(ottla.Brokers("localhost:9092"))
//	defer client.Close()
//
//	producer, err := client.NewProducer()
//	producer.Produce(ctx, ottla.Record{Topic: "events", Value: v}, func(d ottla.Delivery, err error) { ... })
//	at, err := producer.ProduceSync(ctx, record)
//	n, err := producer.ProduceMany(ctx, "events", values)
//	err = producer.Flush(ctx)
//
//	consumer, err := client.NewConsumer(ottla.Topics("events"))
//	for record, err := range consumer.Records(ctx) { ... }
//
// Brokers that want TLS and a login:
//
//	client, err := ottla.NewClient(ottla.Brokers("broker:9094"),
//		ottla.TLS(ottla.CA("ca.pem")), ottla.ScramSHA512("alice", password))
//
// What holds everywhere:
//
//   - Every record resolves exactly once. An error says whether the record may have been written
//     (MaybeWritten), whether trying again helps (Error.Retriable) and what to do (Error.Advice).
//   - A context bounds the wait, not the record: once a record is accepted, an ended context gives
//     its error with MaybeWritten true, and the record goes its way.
//   - Records with equal keys are not kept together unless the producer has Partitioner(KeyHash).
//   - A nil value is a tombstone, []byte{} is empty, and they come back as they went.
//   - Clients, producers and consumers may be used from many goroutines.
//
// A member of a consumer group says that a record is done by asking for the next one; what break or a panic leaves in
// hand is not done, and read again by who has the partition next:
//
//	consumer, err := client.NewConsumer(ottla.Group("billing"), ottla.Topics("events"))
//	for record, err := range consumer.Records(ctx) { ... }
//	err = consumer.Close()   // commits what is done, and leaves
package ottla
