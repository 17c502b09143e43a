package ottla

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
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
	Limit(t)
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
	Limit(t)
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
	Limit(t)
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
	for i, l := range leave {
		l()
		l() // Again does nothing.
		if i == 0 && (hub.where[logger] == nil || hub.where[logger].users[logger] != 1) {
			t.Error("the other client with the logger has lost it")
		}
	}
	if len(hub.readers) != 0 || len(hub.where) != 0 {
		t.Errorf("left: %d readers, %d loggers", len(hub.readers), len(hub.where))
	}
	// Alone at its level.
	first, err := hub.join(logger)
	if err != nil {
		t.Fatal(err)
	}
	second, err := hub.join(logger)
	if err != nil {
		t.Fatal(err)
	}
	first()
	if len(hub.readers) != 1 || hub.where[logger] == nil {
		t.Error("a logger of two clients left with the first of them")
	}
	second()
	if len(hub.readers) != 0 {
		t.Error("a level that nobody wants is read")
	}
}

// kept keeps the records that it is asked to write.
type kept struct {
	slog.Handler
	records *[]slog.Record
}

func (k kept) Handle(_ context.Context, r slog.Record) error {
	*k.records = append(*k.records, r)
	return nil
}

func TestLinesAsALoggerGetsThem(t *testing.T) {
	Limit(t)
	var text book
	var records, none []slog.Record
	r := &logReader{users: map[*slog.Logger]int{
		slog.New(kept{text.logger(slog.LevelInfo).Handler(), &records}): 1,
		slog.New(kept{text.logger(slog.LevelError).Handler(), &none}):   1,
	}}
	hub := logs{}
	r.write(&hub, &capi.Line{
		Level: capi.LogInfo, TimeNs: 1_700_000_000_123_456_789, Target: "ottla::net", Message: "lost",
		Fields: []string{"broker", "3", "address", "a:1"}, Dropped: 7,
	})
	r.write(&hub, &capi.Line{Level: capi.LogWarn, Target: "ottla::net", Message: "plain"})
	if len(records) != 2 || len(none) != 0 {
		t.Fatalf("%d lines, and %d to who wants errors", len(records), len(none))
	}
	attributes := func(r slog.Record) (all []string) {
		r.Attrs(func(a slog.Attr) bool {
			all = append(all, a.String())
			return true
		})
		return all
	}
	first, second := records[0], records[1]
	if first.Message != "lost" || first.Level != slog.LevelInfo || first.Time.UnixNano() != 1_700_000_000_123_456_789 {
		t.Errorf("%+v", first)
	}
	if got := attributes(first); !slices.Equal(got, []string{"target=ottla::net", "broker=3", "address=a:1", "lines_lost_before=7"}) {
		t.Error(got)
	}
	if got := attributes(second); second.Level != slog.LevelWarn || !slices.Equal(got, []string{"target=ottla::net"}) {
		t.Error(second.Level, got)
	}
	if all, none := wantedLevel(text.logger(LevelTrace)), wantedLevel(slog.New(slog.DiscardHandler)); all != capi.LogTrace || none != 0 {
		t.Errorf("levels %d and %d are wanted", all, none)
	}
	for level, want := range map[int32]slog.Level{
		0: slog.LevelError, 1: slog.LevelError, 2: slog.LevelWarn, 3: slog.LevelInfo, 4: slog.LevelDebug, 5: LevelTrace, 6: LevelTrace,
	} {
		if got := lineLevel(level); got != want {
			t.Errorf("level %d is %v, not %v", level, got, want)
		}
	}
}

// A client that could not be made leaves nobody behind who waits for lines.
func TestAClientThatIsNotMadeHasNoLogger(t *testing.T) {
	Limit(t)
	var text book
	if _, err := NewClient(Brokers("host:port"), Logger(text.logger(slog.LevelWarn))); !errors.Is(err, ErrConfig) {
		t.Fatal(err)
	}
	processLogs.mu.Lock()
	defer processLogs.mu.Unlock()
	if len(processLogs.readers) != 0 || len(processLogs.where) != 0 {
		t.Errorf("left: %d readers, %d loggers", len(processLogs.readers), len(processLogs.where))
	}
}

func TestWakeFilesAreNotInherited(t *testing.T) {
	Limit(t)
	c := echoClient(t)
	raw, err := c.wake.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFD, 0)
		if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
			t.Errorf("flags %x, %v: a program that is started has it too", flags, errno)
		}
	})
	if err != nil {
		t.Error(err)
	}
}
