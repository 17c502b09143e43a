package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

func TestAFileComesBackAsItWas(t *testing.T) {
	broker := ottlatest.NewBroker(t)
	records := []ottla.Record{
		{Partition: 0, Key: nil, Value: nil},
		{Partition: 0, Key: []byte{}, Value: []byte{}},
		{Partition: 0, Value: bytes.Repeat([]byte("x"), 900_000)},
		{Partition: 0, Key: []byte("k"), Value: []byte("v"), Headers: []ottla.Header{
			{Name: "a", Value: nil}, {Name: "a", Value: []byte{}}, {Name: "", Value: []byte("1")},
		}},
	}
	var want, in []byte
	for i := range records {
		records[i].Offset = -1
		in = appendRecord(in, &records[i])
		records[i].Offset = int64(i)
		want = appendRecord(want, &records[i])
	}
	dir := t.TempDir()
	source, target := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(source, in, 0o600); err != nil {
		t.Fatal(err)
	}
	for compression := range codecs {
		broker.CreateTopic(compression, 2)
		if err := run([]string{"write", broker.Bootstrap(), compression, source, compression}); err != nil {
			t.Fatal(err)
		}
		if err := run([]string{"read", broker.Bootstrap(), compression, "4", target}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(target)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes came back, want %d", compression, len(got), len(want))
		}
	}
}

func TestADamagedFileIsAnError(t *testing.T) {
	broker := ottlatest.NewBroker(t)
	broker.CreateTopic("t", 1)
	path := filepath.Join(t.TempDir(), "damaged")
	whole := appendRecord(nil, &ottla.Record{Value: []byte("value")})
	huge := binary.LittleEndian.AppendUint32(whole[:12:12], 1<<31-1)
	for name, content := range map[string][]byte{"cut": whole[:len(whole)-6], "huge": huge} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		err := run([]string{"write", broker.Bootstrap(), "t", path})
		if err == nil || !strings.Contains(err.Error(), "record 0") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
