//go:build unix && cgo

// Without cgo there is no package to test, and go vet would say so once more.

package capi

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unsafe"
)

const canary = "hunter2-Zm9v"

func TestSecretsAreOverwrittenBeforeTheyAreFreed(t *testing.T) {
	var m memory
	defer func() { m.free() }()
	sasl := m.sasl(&SASLOptions{User: "alice", Password: NewSecret(canary), Mechanism: Plain})
	tls := m.tls(&TLSOptions{Key: NewSecret(canary)})
	properties := m.properties([]Property{{"sasl.password", NewSecret(canary)}, {"client.id", Secret{}}})
	values := unsafe.Slice(properties, 2)
	copies := map[string]unsafe.Pointer{
		"sasl": unsafe.Pointer(sasl.password), "tls": unsafe.Pointer(tls.key), "properties": unsafe.Pointer(values[0].value),
	}
	bytesOf := func(p unsafe.Pointer) []byte { return unsafe.Slice((*byte)(p), len(canary)+1) }
	for name, p := range copies {
		if string(bytesOf(p)) != canary+"\x00" {
			t.Errorf("%s: %q arrives", name, bytesOf(p))
		}
	}
	if values[1].value == nil || *values[1].value != 0 || tls.ca != nil {
		t.Error("an empty property is one, and an empty option is none")
	}
	m.forget()
	for name, p := range copies {
		if !bytes.Equal(bytesOf(p), make([]byte, len(canary)+1)) {
			t.Errorf("%s: %q is left", name, bytesOf(p))
		}
	}
}

func TestADelegationTokenArrives(t *testing.T) {
	var m memory
	defer func() { m.free() }()
	for _, token := range []bool{false, true} {
		if got := m.sasl(&SASLOptions{DelegationToken: token}).delegation_token; (got != 0) != token {
			t.Errorf("%v: %d", token, got)
		}
	}
}

func TestASecretShowsNothing(t *testing.T) {
	o := ClientOptions{
		TLS: &TLSOptions{Key: NewSecret(canary)}, SASL: &SASLOptions{Password: NewSecret(canary)},
		Properties: []Property{{"sasl.password", NewSecret(canary)}},
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		shown := fmt.Sprintf(verb+verb+verb, o.Properties, *o.TLS, *o.SASL)
		if strings.Contains(shown, canary) || !strings.Contains(shown, "***") {
			t.Errorf("%s: %s", verb, shown)
		}
	}
}
