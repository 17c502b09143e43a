package ottla

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// Code says what kind of thing went wrong. Codes are errors themselves, so that
// errors.Is(err, ottla.ErrUnknownTopic) works on everything this package returns. The names are
// the same in every language Ottla speaks.
type Code int32

// The codes, which are the targets for errors.Is.
const (
	// ErrConfig: a setting is missing, misspelt or out of its range.
	ErrConfig Code = 1
	// ErrInvalidArgument: an argument is not usable (an empty topic name, a negative timestamp).
	ErrInvalidArgument Code = 2
	// ErrResolve: a host name of the bootstrap list could not be resolved.
	ErrResolve Code = 3
	// ErrConnect: nobody could be reached.
	ErrConnect Code = 4
	// ErrNotKafka: what answered does not speak Kafka's protocol.
	ErrNotKafka Code = 5
	// ErrUnsupportedVersion: broker and client share no version of a request that is needed.
	ErrUnsupportedVersion Code = 6
	// ErrDisconnected: a connection was lost with requests in flight.
	ErrDisconnected Code = 7
	// ErrTimeout: a deadline passed: the context's, the record's, or the request's.
	ErrTimeout Code = 8
	// ErrBufferFull: there was no buffer space.
	ErrBufferFull Code = 9
	// ErrRecordTooLarge: a record is larger than the client or the topic takes.
	ErrRecordTooLarge Code = 10
	// ErrInvalidRecord: the broker refused the record's content.
	ErrInvalidRecord Code = 11
	// ErrUnknownTopic: the cluster does not know the topic.
	ErrUnknownTopic Code = 12
	// ErrUnknownPartition: the topic has no such partition.
	ErrUnknownPartition Code = 13
	// ErrTopicExists: the topic to be created exists.
	ErrTopicExists Code = 14
	// ErrAuthorization: the credentials do not allow this.
	ErrAuthorization Code = 15
	// ErrAuthentication: the credentials were refused.
	ErrAuthentication Code = 16
	// ErrFenced: the producer was fenced, or its state on the broker is lost.
	ErrFenced Code = 17
	// ErrOffsetOutOfRange: the offset is outside what the partition holds.
	ErrOffsetOutOfRange Code = 18
	// ErrCorrupt: fetched bytes are damaged.
	ErrCorrupt Code = 19
	// ErrUnsupportedCodec: fetched records use a codec that this build cannot read.
	ErrUnsupportedCodec Code = 20
	// ErrBroker: another error of the broker; see Error.BrokerCode.
	ErrBroker Code = 21
	// ErrClosed: the handle was used after it, or its client, was closed.
	ErrClosed Code = 22
	// ErrForked: this process is a fork of the one that made the client.
	ErrForked Code = 23
	// ErrInternal: a fault of this library.
	ErrInternal Code = 24
	// ErrCancelled: the context was cancelled.
	ErrCancelled Code = 25
	// ErrOutOfResources: the system has no thread, descriptor or memory left for this process.
	ErrOutOfResources Code = 26
	// ErrClusterChanged: another cluster answers at the addresses now; see OnClusterChange.
	ErrClusterChanged Code = 27
	// ErrTruncated: the log is not the one that was read any more: it was cut back, or its topic was
	// deleted and made anew. The message says how far it was read, and where reading goes on.
	ErrTruncated Code = 28
	// ErrUndelivered: records failed that nobody was told of; see Error.Undelivered.
	ErrUndelivered Code = 29
	// ErrTLS: TLS with a broker failed: a certificate that is not trusted, on either side, or a listener
	// without TLS.
	ErrTLS Code = 30
	// ErrCredentials: there is nothing to log in with: no token was to be had. No broker has refused anything.
	ErrCredentials Code = 31
	// ErrUnknown: a failure that this version of the package has no name for.
	ErrUnknown Code = 1000
)

// String is the code's stable name ("unknown_topic").
func (c Code) String() string { return capi.StatusName(int32(c)) }

// Error makes a code usable as the target of errors.Is.
func (c Code) Error() string { return "ottla: " + c.String() }

// Error is the error of every call and every delivery of this package that fails.
type Error struct {
	// Code says what kind of thing went wrong.
	Code Code
	// Message says what happened, Advice what to do about it, in one sentence.
	Message, Advice string
	// BrokerCode is the Kafka error code that a broker answered; 0 if none did.
	BrokerCode int16
	// Retriable: the same call may succeed later with nothing changed.
	Retriable bool
	// Fatal: the handle that gave the error is of no more use.
	Fatal bool
	// Undelivered tells of records that failed and that nobody was told of, where Code is
	// ErrUndelivered; else nil.
	Undelivered *Undelivered

	maybeWritten bool
	cause        error
}

// Undelivered is the report that Flush, Shutdown and Close give, once, on records that failed without anybody
// being told: they had no callback, or the context of their ProduceSync had ended.
type Undelivered struct {
	// Records is how many failed, First the error of the one that failed first: errors.Is finds its code
	// too.
	Records int
	First   error
	// Topics are those that the records were for, 16 at most; MoreTopics if there are others.
	Topics     []string
	MoreTopics bool
}

func (u *Undelivered) message(first string) string {
	names := make([]string, len(u.Topics))
	for i, topic := range u.Topics {
		names[i] = "'" + topic + "'"
	}
	more, records, topics := "", "records", "topics"
	if u.MoreTopics {
		more = " and others"
	}
	if u.Records == 1 {
		records = "record"
	}
	if len(names) == 1 && !u.MoreTopics {
		topics = "topic"
	}
	return fmt.Sprintf("%d %s failed and nobody was told, in %s %s%s; the first: %s",
		u.Records, records, topics, strings.Join(names, ", "), more, first)
}

// Error gives message and advice.
func (e *Error) Error() string {
	text := "ottla: " + e.Message
	if e.Advice != "" {
		text += "; " + e.Advice
	}
	if e.maybeWritten {
		text += " (the record may have been written)"
	}
	return text
}

// MaybeWritten tells whether the record may be in the log although its send failed. False: it
// certainly is not, and sending it again makes no duplicate.
func (e *Error) MaybeWritten() bool { return e.maybeWritten }

// Is makes errors.Is(err, ottla.ErrTimeout) and its like work.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && code == e.Code
}

// Unwrap gives the context's error where one ended a wait.
func (e *Error) Unwrap() error { return e.cause }

// MaybeWritten tells whether err says that its record may be in the log all the same. False for
// nil and for errors of other packages.
func MaybeWritten(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.maybeWritten
}

// failed turns a failure of the C library into an Error; nil stays nil (of type error, not *Error).
func failed(f *capi.Failure) error {
	if f == nil {
		return nil
	}
	return &Error{
		Code:         Code(f.Status),
		Message:      f.Message,
		Advice:       f.Advice,
		BrokerCode:   int16(f.BrokerCode),
		Retriable:    f.Retriable,
		Fatal:        f.Fatal,
		maybeWritten: f.MaybeWritten,
	}
}

func invalid(format string, args ...any) error {
	return &Error{
		Code:    ErrInvalidArgument,
		Message: fmt.Sprintf(format, args...),
		Advice:  "correct the argument",
	}
}

// badTopic is the error of a topic's name that C can not carry.
func badTopic(name string) error {
	if name == "" {
		return invalid("the topic's name is empty")
	}
	return invalid("the topic's name %q has a NUL in it", name)
}

func misconfigured(format string, args ...any) error {
	return &Error{
		Code:    ErrConfig,
		Message: fmt.Sprintf(format, args...),
		Advice:  "correct the setting and start again",
		Fatal:   true,
	}
}

// bufferFull is the error of a wait for space that MaxBlock ended.
func bufferFull(after time.Duration) error {
	return &Error{
		Code:      ErrBufferFull,
		Message:   fmt.Sprintf("BufferMemory stayed full for %v", after),
		Advice:    "send slower, raise BufferMemory or MaxBlock, or find out why the brokers do not keep up",
		Retriable: true,
	}
}

func closed(what string) error {
	return &Error{
		Code:    ErrClosed,
		Message: "the " + what + " is closed",
		Advice:  "make a new handle",
		Fatal:   true,
	}
}

// ended is the error of a wait that its context ended.
func ended(ctx context.Context, what string, maybeWritten bool) error {
	cause := context.Cause(ctx)
	e := &Error{
		Code:         ErrCancelled,
		Message:      fmt.Sprintf("%s: %v", what, cause),
		Advice:       "wait again if the result still matters",
		Retriable:    true,
		maybeWritten: maybeWritten,
		// Both: errors.Is finds context.Canceled whatever the cause was.
		cause: errors.Join(ctx.Err(), cause),
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		e.Code = ErrTimeout
		e.Advice = "look at broker load and network, or allow more time"
	}
	return e
}
