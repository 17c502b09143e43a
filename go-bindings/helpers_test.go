package ottla

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deadline ends waits that would otherwise hang; nothing is measured with it.
const deadline = 60 * time.Second

// testLimit is what a test may take: more than any wait in it, so that one that ends says what it waited for.
const testLimit = 2 * deadline

// Limit ends the program, by the name of the test, when the test does not end: long before the limit of
// all, which names none. Every test begins with it: the first cleanup to be registered is the last to
// run, so that what closes in one is bounded too.
func Limit(t *testing.T) {
	t.Helper()
	name := t.Name()
	timer := time.AfterFunc(testLimit, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("HANGS %s: not over within %v", name, testLimit))
	})
	t.Cleanup(func() { timer.Stop() })
}

// A test without a limit would hold up all of them when it hangs.
func TestEveryTestHasALimit(t *testing.T) {
	Limit(t)
	files, err := filepath.Glob("*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range strings.Split(string(text), "\nfunc Test")[1:] {
			name, body, _ := strings.Cut(test, "(")
			if _, first, _ := strings.Cut(body, "\n\t"); !strings.HasPrefix(strings.TrimPrefix(first, "ottla."), "Limit(t)\n") {
				t.Errorf("%s: Test%s does not begin with Limit(t)", file, name)
			}
		}
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func echoClient(t *testing.T) *Client {
	t.Helper()
	c, err := NewClient(Echo())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func newProducer(t *testing.T, c *Client, options ...ProducerOption) *Producer {
	t.Helper()
	p, err := c.NewProducer(options...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(deadline):
		t.Fatalf("%s: nothing within %v", what, deadline)
		panic("unreachable")
	}
}

// NobodyListens is an address that is taken for as long as the test, and where nobody listens: a port
// that was only free a moment ago may be somebody's by the time it is dialled.
func NobodyListens(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
}

// lookOnce is a batch that is there already.
func lookOnce(c *Consumer) (*Batch, error) {
	found, err := c.look(nil, false, true, false)
	batch, _ := found.(*Batch)
	return batch, err
}
