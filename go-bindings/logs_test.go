package ottla

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// book is a writer that can be read meanwhile.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *book) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: level}))
}

// trouble makes a client that reaches nobody, and waits until it has given up.
func trouble(t *testing.T, address string, options ...ClientOption) {
	t.Helper()
	options = append(options, Brokers(address), ConnectTimeout(3*time.Second))
	if _, err := NewClient(options...); !errors.Is(err, ErrConnect) && !errors.Is(err, ErrTimeout) {
		t.Fatalf("nobody is there: %v", err)
	}
}

func TestTroubleReachesTheLogger(t *testing.T) {
	var warnings, all, standard book
	before := slog.Default()
	slog.SetDefault(standard.logger(slog.LevelDebug))
	defer slog.SetDefault(before)
	address := NobodyListens(t)
	var both sync.WaitGroup
	for _, options := range [][]ClientOption{
		{Logger(warnings.logger(slog.LevelWarn))},
		{Logger(all.logger(LevelTrace))},
		{Logger(slog.New(slog.DiscardHandler))},
		{Logger(nil)},
		{}, // slog.Default, from warnings on
	} {
		both.Add(1)
		go func() {
			defer both.Done()
			trouble(t, address, options...)
		}()
	}
	both.Wait()
	for name, b := range map[string]*book{"warnings": &warnings, "all": &all, "default": &standard} {
		text := b.String()
		if !strings.Contains(text, address) || !strings.Contains(text, "level=WARN") || !strings.Contains(text, "target=ottla::") {
			t.Errorf("%s: %q", name, text)
		}
		if name != "all" && (strings.Contains(text, "level=INFO") || strings.Contains(text, "level=DEBUG")) {
			t.Errorf("%s: less than warnings: %s", name, text)
		}
	}
	processLogs.mu.Lock()
	defer processLogs.mu.Unlock()
	if len(processLogs.readers) != 0 || len(processLogs.where) != 0 {
		t.Errorf("left: %d readers, %d loggers", len(processLogs.readers), len(processLogs.where))
	}
}

// closing is a handler that does what a handler may: use the client, and make another.
type closing struct {
	slog.Handler
	do func()
}

func (c closing) Handle(ctx context.Context, r slog.Record) error {
	c.do()
	return c.Handler.Handle(ctx, r)
}

// A handler is the program's code: it may come back into the package on the spot.
func TestAHandlerMayUseThePackage(t *testing.T) {
	var text book
	var once sync.Once
	ran := make(chan error, 1)
	handler := closing{text.logger(slog.LevelWarn).Handler(), func() {
		once.Do(func() {
			c, err := NewClient(Echo(), Logger(text.logger(slog.LevelWarn)))
			if err == nil {
				_, err = c.Stats()
				err = errors.Join(err, c.Close())
			}
			ran <- err
		})
	}}
	trouble(t, NobodyListens(t), Logger(slog.New(handler)))
	if err := receive(t, ran, "the handler"); err != nil {
		t.Error(err)
	}
}

// A logger is in use by as many clients as were given it, and gets each line once.
func TestLoggersComeAndGoWithTheirClients(t *testing.T) {
	var text book
	logger := text.logger(slog.LevelWarn)
	hub := logs{readers: map[int32]*logReader{}, where: map[*slog.Logger]*logReader{}}
	var leave []func()
	for _, logger := range []*slog.Logger{logger, logger, nil, text.logger(slog.LevelError)} {
		l, err := hub.join(logger)
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if len(hub.readers) != 2 || len(hub.where) != 3 || hub.where[logger].users[logger] != 2 {
		t.Errorf("%d readers, %d loggers", len(hub.readers), len(hub.where))
	}
	for _, l := range leave {
		l()
		l() // Again does nothing.
	}
	if len(hub.readers) != 0 || len(hub.where) != 0 {
		t.Errorf("left: %d readers, %d loggers", len(hub.readers), len(hub.where))
	}
}
