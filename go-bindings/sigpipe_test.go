package ottla_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

// childVariable makes this test the child.
const childVariable = "OTTLA_TEST_BROKERS_THAT_CLOSE"

// A broker that closes while the library's thread, which is not Go's, writes to it: Go leaves the
// signal of a broken pipe on such a thread to its default, which is the end of the program.
func TestABrokerThatClosesWhileItIsWrittenToDoesNotEndTheProgram(t *testing.T) {
	ottla.Limit(t)
	if os.Getenv(childVariable) != "" {
		writeToBrokersThatClose(t)
		return
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A program of its own: the testing package would notice nothing of its end by a signal.
	command := exec.Command(program, "-test.run=^"+t.Name()+"$", "-test.v")
	command.Env = append(os.Environ(), childVariable+"=1")
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func writeToBrokersThatClose(t *testing.T) {
	broker := ottlatest.NewCluster(t, 2)
	broker.CreateTopic("t", 8)
	client := broker.Client()
	producer := producerOf(t, client, ottla.Linger(0), ottla.Compression(ottla.None), ottla.DeliveryTimeout(30*time.Second))
	stop, cancel := context.WithCancel(within(t))
	produced := make(chan int, 1)
	go func() {
		n := 0
		value := make([]byte, 100_000)
		for ; stop.Err() == nil; n++ {
			producer.Produce(stop, ottla.Record{Topic: "t", Value: value}, func(_ ottla.Delivery, err error) {
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		produced <- n
	}()
	end := func() (n int64) {
		for p := range int32(8) {
			n += broker.LogEnd("t", p)
		}
		return n
	}
	for i := range 40 {
		before := end()
		until(t, "records are written", func() bool { return end() > before })
		broker.StopBroker(1+i%2, true)
		broker.StartBroker(1 + i%2)
	}
	cancel()
	if n := <-produced; n == 0 {
		t.Error("nothing was produced")
	}
	if err := producer.Flush(within(t)); err != nil {
		t.Error(err)
	}
}
