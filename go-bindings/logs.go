package ottla

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// LevelTrace is the slog level of lines about every batch, below Debug.
const LevelTrace = slog.LevelDebug - 4

// logsGrace is what the last client to close waits for the lines that lie there to be handed out.
const logsGrace = time.Second

// logs hands the lines of the library, which are the process's and not a client's, to the loggers of
// the clients that are open. A level that is wanted has a goroutine of its own, from the first client
// that wants it to the last; nearly all programs want one.
type logs struct {
	mu      sync.Mutex
	readers map[int32]*logReader
	// where each logger is: the same one in two clients gets a line once. nil is slog.Default.
	where map[*slog.Logger]*logReader
}

type logReader struct {
	level int32
	api   *capi.Logs
	wake  *os.File
	// users counts clients by logger.
	users map[*slog.Logger]int
	done  chan struct{}
}

var processLogs = logs{readers: map[int32]*logReader{}, where: map[*slog.Logger]*logReader{}}

// lineLevels are the library's levels in slog's, from Error on.
var lineLevels = [...]slog.Level{slog.LevelError, slog.LevelWarn, slog.LevelInfo, slog.LevelDebug, LevelTrace}

func lineLevel(level int32) slog.Level {
	return lineLevels[max(1, min(int(level), len(lineLevels)))-1]
}

// wanted is the least important of the library's levels that a logger writes; 0 if it writes none.
func wantedLevel(logger *slog.Logger) (wanted int32) {
	for level := capi.LogError; level <= capi.LogTrace; level++ {
		if logger.Enabled(context.Background(), lineLevel(level)) {
			wanted = level
		}
	}
	return wanted
}

// join has logger (nil: slog.Default, from warnings on) written to until leave is called.
func (l *logs) join(logger *slog.Logger) (leave func(), _ error) {
	level := capi.LogWarn
	if logger != nil {
		// Asked before the lock: it is the program's code.
		level = wantedLevel(logger)
	}
	if level == 0 {
		return func() {}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.where[logger]
	if r == nil {
		if r = l.readers[level]; r == nil {
			var err error
			if r, err = openLogs(level); err != nil {
				return nil, err
			}
			l.readers[level] = r
			go r.run(l)
		}
		l.where[logger] = r
	}
	r.users[logger]++
	return sync.OnceFunc(func() { l.leave(logger, r) }), nil
}

func openLogs(level int32) (*logReader, error) {
	api, failure := capi.OpenLogs(level)
	if failure != nil {
		return nil, failed(failure)
	}
	wake, err := api.WakeFile()
	if err != nil {
		api.Free()
		return nil, noDescriptor(err)
	}
	return &logReader{
		level: level, api: api, wake: wake, users: map[*slog.Logger]int{}, done: make(chan struct{}),
	}, nil
}

func (l *logs) leave(logger *slog.Logger, r *logReader) {
	l.mu.Lock()
	last := r.users[logger] == 1 && len(r.users) == 1
	if last {
		delete(l.readers, r.level)
		delete(l.where, logger)
	} else if r.users[logger]--; r.users[logger] == 0 {
		delete(r.users, logger)
		delete(l.where, logger)
	}
	l.mu.Unlock()
	if !last {
		return
	}
	// The last user stays in the list: what lies there is for it.
	r.api.Close()
	timer := time.NewTimer(logsGrace)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
		// Its handler is slow, or it is the handler that closes the client.
	}
}

// run is the goroutine of a level.
func (r *logReader) run(l *logs) {
	defer close(r.done)
	defer r.api.Free()
	defer func() { _ = r.wake.Close() }()
	var word [8]byte
	for {
		line, ended := r.api.Next()
		switch {
		case ended:
			return
		case line != nil:
			r.write(l, line)
		default:
			if _, err := r.wake.Read(word[:]); err != nil {
				return
			}
		}
	}
}

// write hands a line to the loggers of the level, without a lock: they are the program's code.
func (r *logReader) write(l *logs, line *capi.Line) {
	l.mu.Lock()
	loggers := make([]*slog.Logger, 0, len(r.users))
	for logger := range r.users {
		loggers = append(loggers, logger)
	}
	l.mu.Unlock()
	record := slog.NewRecord(time.Unix(0, line.TimeNs), lineLevel(line.Level), line.Message, 0)
	record.AddAttrs(slog.String("target", line.Target))
	for i := 0; i+1 < len(line.Fields); i += 2 {
		record.AddAttrs(slog.String(line.Fields[i], line.Fields[i+1]))
	}
	if line.Dropped > 0 {
		record.AddAttrs(slog.Uint64("lines_lost_before", line.Dropped))
	}
	ctx := context.Background()
	for _, logger := range loggers {
		if logger == nil {
			logger = slog.Default()
		}
		if handler := logger.Handler(); handler.Enabled(ctx, record.Level) {
			_ = handler.Handle(ctx, record.Clone())
		}
	}
}
