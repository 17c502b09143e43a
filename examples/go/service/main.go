// Service takes records over HTTP and answers once the brokers have them: POST /events, the body is the value.
//
//	go run ./service [-bootstrap host:9092] [-listen localhost:8080] [-topic events]
//
// Without -bootstrap it starts a cluster in its own process. SIGTERM ends it: it takes no more requests, finishes those that
// it has, and loses nothing that it said it has taken.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

const (
	// mostBytes of a request are read.
	mostBytes = 512 << 10
	// patience of a request: longer than the loss of a broker takes, shorter than the caller's.
	patience = 20 * time.Second
	// ending is how long requests that are under way, and then the brokers, have at the end: together less than what
	// orchestrators grant (Kubernetes 30 s).
	ending = 12 * time.Second
)

func main() {
	log.SetFlags(0)
	bootstrap := flag.String("bootstrap", "", "brokers, host:port; default: an embedded cluster")
	listen := flag.String("listen", "localhost:8080", "where to listen")
	topic := flag.String("topic", "events", "the topic that is written to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bootstrap, *listen, *topic); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, bootstrap, listen, topic string) error {
	if bootstrap == "" {
		broker, err := ottla.StartEmbeddedBroker(3)
		if err != nil {
			return err
		}
		defer broker.Close()
		bootstrap = broker.Bootstrap()
	}
	client, err := ottla.NewClientContext(ctx, ottla.Brokers(bootstrap))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	// A request that finds no space waits for a moment, and then tells its caller to come back: else all of them would wait
	// here while the brokers are away.
	producer, err := client.NewProducer(ottla.MaxBlock(time.Second), ottla.DeliveryTimeout(patience))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler(producer, topic), ReadHeaderTimeout: 5 * time.Second}
	fmt.Println("listening on", listener.Addr())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return errors.Join(err, producer.Close())
	case <-ctx.Done():
	}
	// In this order: no more requests, then the end of those there are, which wait for their records; then whatever else is in
	// the producer. To close the producer first would refuse records of requests that were taken.
	requests, cancel := context.WithTimeout(context.Background(), ending)
	defer cancel()
	err = server.Shutdown(requests)
	records, cancelRecords := context.WithTimeout(context.Background(), ending)
	defer cancelRecords()
	return errors.Join(err, producer.Shutdown(records))
}

// handler answers 200 with the place of the record once the brokers have it.
//
// 503 with Retry-After says that it may not be there, and that trying again may write it twice: whoever cares puts an id of
// its own into the value.
func handler(producer *ottla.Producer, topic string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /events", func(w http.ResponseWriter, r *http.Request) {
		value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBytes))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		// The caller's context: once it has hung up, nobody waits here. The record goes its way all the same.
		at, err := producer.ProduceSync(r.Context(), ottla.Record{Topic: topic, Value: value})
		switch {
		case err == nil:
			fmt.Fprintf(w, "%s[%d] %d\n", at.Topic, at.Partition, at.Offset)
		case errors.Is(err, ottla.ErrRecordTooLarge):
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		case errors.Is(err, ottla.ErrBufferFull), errors.Is(err, ottla.ErrTimeout):
			w.Header().Set("Retry-After", "2")
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			log.Print(err)
			http.Error(w, "the record was not written", http.StatusServiceUnavailable)
		}
	})
	return mux
}
