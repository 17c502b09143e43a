package ottla

import (
	"errors"
	"testing"
)

func TestEveryCodeHasItsName(t *testing.T) {
	seen := map[string]Code{}
	for code := ErrConfig; code <= ErrUndelivered; code++ {
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
	if next := ErrUndelivered + 1; next.String() != ErrUnknown.String() {
		t.Errorf("%v, %d, is no code here", next, next)
	}
	if ErrUnknownTopic.String() != "unknown_topic" {
		t.Errorf("unknown_topic is %v", ErrUnknownTopic)
	}
}
