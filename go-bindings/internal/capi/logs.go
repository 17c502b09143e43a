package capi

/*
#include <stdlib.h>
#include "library.h"
*/
import "C"

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// Levels of log lines: ottla_log_level.
const (
	LogError = int32(C.OTTLA_LOG_ERROR)
	LogWarn  = int32(C.OTTLA_LOG_WARN)
	LogInfo  = int32(C.OTTLA_LOG_INFO)
	LogDebug = int32(C.OTTLA_LOG_DEBUG)
	LogTrace = int32(C.OTTLA_LOG_TRACE)
)

// Line is one line of the library's log.
type Line struct {
	Level           int32
	TimeNs          int64
	Target, Message string
	// Fields are names and values in turn.
	Fields []string
	// Dropped lines were lost before this one.
	Dropped uint64
}

// Logs are the lines that the library says, for one goroutine that takes them.
type Logs struct {
	mu sync.RWMutex
	h  *C.ottla_logs
}

// OpenLogs keeps every line from now on that is as important as level, or more so.
func OpenLogs(level int32) (*Logs, *Failure) {
	var h *C.ottla_logs
	var e *C.ottla_error
	if f := outcome(C.ottla_logs_open(C.int32_t(level), &h, &e), e); f != nil {
		return nil, f
	}
	return &Logs{h: h}, nil
}

// WakeFile is readable while a line waits, and after Close; see Client.WakeFile.
func (l *Logs) WakeFile() (*os.File, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.h == nil {
		return nil, os.ErrClosed
	}
	return wakeFile(int(C.ottla_logs_fd(l.h)), "ottla-logs")
}

// Next takes the next line, without waiting; nil if there is none. ended: none will come.
func (l *Logs) Next() (line *Line, ended bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.h == nil {
		return nil, true
	}
	var raw *C.ottla_log
	var e *C.ottla_error
	if f := outcome(C.ottla_logs_next(l.h, 0, &raw, &e), e); f != nil {
		return nil, true
	}
	if raw == nil {
		return nil, false
	}
	defer C.ottla_log_free(raw)
	var info C.ottla_log_info
	if f := outcome(C.ottla_log_describe(raw, &info, &e), e); f != nil {
		return nil, true
	}
	line = &Line{
		Level:   int32(info.level),
		TimeNs:  int64(info.time_ns),
		Target:  C.GoString(info.target),
		Message: C.GoString(info.message),
		Dropped: uint64(info.dropped),
	}
	if n := int(info.field_count); n > 0 {
		// In C's memory: the library writes pointers into it.
		array := (*C.ottla_log_field)(C.calloc(C.size_t(n), C.size_t(unsafe.Sizeof(C.ottla_log_field{}))))
		defer C.free(unsafe.Pointer(array))
		var count C.size_t
		if f := outcome(C.ottla_log_fields(raw, array, C.size_t(n), &count, &e), e); f != nil {
			return nil, true
		}
		for _, field := range unsafe.Slice(array, count) {
			line.Fields = append(line.Fields, C.GoString(field.name), C.GoString(field.value))
		}
	}
	return line, false
}

// Close takes no more lines; those that wait can still be taken.
func (l *Logs) Close() {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.h != nil {
		var e *C.ottla_error
		_ = outcome(C.ottla_logs_close(l.h, &e), e)
	}
}

// Free frees the handle. Freeing again does nothing.
func (l *Logs) Free() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.h != nil {
		C.ottla_logs_free(l.h)
		l.h = nil
	}
}

// wakeFile makes a file of a descriptor of the library's. It is the caller's to close, and known to
// the runtime's poller: a goroutine that reads it parks no thread.
func wakeFile(fd int, name string) (*os.File, error) {
	if fd < 0 {
		return nil, fmt.Errorf("ottla: this platform has no descriptor to wait on")
	}
	// A duplicate: the file closes what it is given, and the original belongs to the handle. The
	// lock keeps a concurrent fork and exec from inheriting it.
	syscall.ForkLock.RLock()
	own, err := syscall.Dup(fd)
	if err == nil {
		syscall.CloseOnExec(own)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("ottla: duplicating the wake descriptor: %w", err)
	}
	// Without O_NONBLOCK the file would not enter the poller.
	if err := syscall.SetNonblock(own, true); err != nil {
		_ = syscall.Close(own)
		return nil, fmt.Errorf("ottla: wake descriptor: %w", err)
	}
	return os.NewFile(uintptr(own), name), nil
}
