package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

// child is set for the process that is the service.
const child = "OTTLA_EXAMPLE_SERVICE"

func TestMain(m *testing.M) {
	if bootstrap := os.Getenv(child); bootstrap != "" {
		os.Args = []string{"service", "-bootstrap", bootstrap, "-listen", "localhost:0"}
		main()
		return
	}
	os.Exit(m.Run())
}

// start gives the service in a process of its own, and where it listens.
func start(ctx context.Context, t *testing.T, bootstrap string) (*exec.Cmd, string) {
	t.Helper()
	service := exec.CommandContext(ctx, os.Args[0])
	service.Env = append(os.Environ(), child+"="+bootstrap)
	service.Stderr = os.Stderr
	out, err := service.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return service, "http://" + strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
}

// What was answered with 200 is in the topic, once, and what is in the topic was answered: also what was under way as the
// service was told to end.
func TestNothingThatWasAcceptedIsLost(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	broker := ottlatest.NewCluster(t, 3)
	broker.CreateTopic("events", 6)
	service, url := start(ctx, t, broker.Bootstrap())

	const callers, before = 16, 50
	var accepted sync.Map
	var calls, warm sync.WaitGroup
	calls.Add(callers)
	warm.Add(callers)
	for caller := range callers {
		go func() {
			defer calls.Done()
			for i := 0; ; i++ {
				if i == before {
					warm.Done()
				}
				id := fmt.Sprintf("%d-%d", caller, i)
				request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/events", strings.NewReader(id))
				if err != nil {
					t.Error(err)
					return
				}
				answer, err := http.DefaultClient.Do(request)
				if err != nil {
					// It has ended; before that all are taken.
					if i < before {
						t.Error(err)
						warm.Done()
					}
					return
				}
				_, _ = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
				if answer.StatusCode == http.StatusOK {
					accepted.Store(id, true)
				} else {
					// Who is taken is served, also at the end.
					t.Errorf("%s: %s", id, answer.Status)
				}
			}
		}()
	}
	// All are in the middle of it.
	warm.Wait()
	if err := service.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	calls.Wait()
	if err := service.Wait(); err != nil {
		t.Errorf("the service ended with %v", err)
	}

	read := map[string]int{}
	for partition := range int32(6) {
		for _, record := range broker.Records("events", partition, true) {
			read[string(record.Value)]++
		}
	}
	count := 0
	accepted.Range(func(id, _ any) bool {
		count++
		if read[id.(string)] != 1 {
			t.Errorf("%v was accepted, and is there %d times", id, read[id.(string)])
		}
		return true
	})
	for id := range read {
		if _, ok := accepted.Load(id); !ok {
			t.Errorf("%s is there, and whoever sent it was not told", id)
		}
	}
	if count < callers*before {
		t.Errorf("%d were accepted", count)
	}
}

// Brokers that are away for longer than a request waits are no reason to hang, or to say that a record was written.
func TestWhoCannotWriteSaysSo(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	broker := ottlatest.NewCluster(t, 1)
	broker.CreateTopic("events", 1)
	client, err := ottla.NewClientContext(ctx, ottla.Brokers(broker.Bootstrap()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	producer, err := client.NewProducer(ottla.DeliveryTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	produce := int16(0)
	broker.Inject(ottla.Fault{Kind: ottla.FaultBlackHole, API: &produce})
	server := &http.Server{Handler: handler(producer, "events")}
	defer func() { _ = server.Close() }()
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	answer, err := http.Post("http://"+listener.Addr().String()+"/events", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
		t.Errorf("answered %s", answer.Status)
	}
}
