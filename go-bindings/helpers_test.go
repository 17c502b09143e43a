package ottla

import (
	"context"
	"testing"
	"time"
)

// deadline ends waits that would otherwise hang; nothing is measured with it.
const deadline = 60 * time.Second

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
