package ottla

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

func TestEveryCodeHasItsName(t *testing.T) {
	Limit(t)
	seen := map[string]Code{}
	for code := ErrConfig; code <= ErrCredentials; code++ {
		name := code.String()
		if other, twice := seen[name]; twice || name == "" || name == ErrUnknown.String() {
			t.Errorf("code %d is %q, as is %d", code, name, other)
		}
		seen[name] = code
		if err := error(&Error{Code: code}); !errors.Is(err, code) || errors.Is(err, ErrUnknown) {
			t.Errorf("errors.Is does not find %v", code)
		}
	}
	// A status of the C library that has no code here would be a number without a name.
	if next := ErrCredentials + 1; next.String() != ErrUnknown.String() {
		t.Errorf("%v, %d, is no code here", next, next)
	}
	if ErrUnknownTopic.String() != "unknown_topic" {
		t.Errorf("unknown_topic is %v", ErrUnknownTopic)
	}
}

func TestTheErrorOfAContext(t *testing.T) {
	Limit(t)
	why := errors.New("the shop is closed")
	cancelled, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	err := ended(cancelled, "waiting", true)
	if !errors.Is(err, ErrCancelled) || !errors.Is(err, context.Canceled) || !errors.Is(err, why) || !MaybeWritten(err) || errors.Is(err, ErrTimeout) {
		t.Errorf("cancelled: %v", err)
	}
	if text := err.Error(); !strings.Contains(text, "waiting: the shop is closed") || !strings.HasSuffix(text, "(the record may have been written)") {
		t.Error(text)
	}
	late, stop := context.WithDeadlineCause(context.Background(), time.Unix(0, 0), why)
	defer stop()
	err = ended(late, "waiting", false)
	var e *Error
	if !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, why) || MaybeWritten(err) || errors.Is(err, ErrCancelled) {
		t.Errorf("late: %v", err)
	}
	if !errors.As(err, &e) || !e.Retriable || e.Fatal || !strings.Contains(e.Advice, "more time") || strings.Contains(err.Error(), "may have been written") {
		t.Errorf("%+v", e)
	}
}

func TestAFailureOfTheEngineIsAnErrorWithAllItSays(t *testing.T) {
	Limit(t)
	if err := failed(nil); err != nil {
		t.Errorf("nothing is an error: %v", err)
	}
	for _, tt := range []capi.Failure{
		{Status: 12, Message: "m", Advice: "a", BrokerCode: 3},
		{Status: 21, Message: "m", Advice: "a", BrokerCode: -1, Retriable: true},
		{Status: 22, Message: "m", Fatal: true},
		{Status: 8, Message: "m", Advice: "a", MaybeWritten: true},
	} {
		var e *Error
		if !errors.As(failed(&tt), &e) {
			t.Fatal("not an *Error")
		}
		got := capi.Failure{
			Status: int32(e.Code), Message: e.Message, Advice: e.Advice, BrokerCode: tt.BrokerCode,
			Retriable: e.Retriable, Fatal: e.Fatal, MaybeWritten: e.MaybeWritten(),
		}
		if !reflect.DeepEqual(got, tt) || int64(e.BrokerCode) != int64(tt.BrokerCode) {
			t.Errorf("%+v from %+v", e, tt)
		}
	}
}

func TestWhatIsNoArgumentForATopic(t *testing.T) {
	Limit(t)
	c := echoClient(t)
	for _, tt := range []struct {
		name                    string
		partitions, replication int
	}{
		{"t", 0, 1}, {"t", -2, 1}, {"t", 1 << 31, 1}, {"t", 1, 0}, {"t", 1, -2}, {"t", 1, 1 << 15}, {"t", 1, 1<<16 + 1},
		{"", 1, 1}, {"a\x00b", 1, 1},
	} {
		if err := c.CreateTopic(within(t), tt.name, tt.partitions, tt.replication); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	if err := c.CreateTopic(within(t), "t", -1, -1); err != nil {
		t.Errorf("the cluster's choice: %v", err)
	}
}
