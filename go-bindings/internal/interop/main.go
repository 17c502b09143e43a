// Interop writes and reads the files by which clients of different languages are compared.
//
//	interop write BOOTSTRAP TOPIC FILE [none|lz4|gzip|snappy|zstd]
//	interop read  BOOTSTRAP TOPIC COUNT FILE
//
// A file is records, one behind the other, all numbers little-endian:
//
//	partition i32 (-1: no choice) | offset i64 (-1 in files to write)
//	| key_len i32 (-1: null) | key | value_len i32 (-1: null) | value
//	| header_count u32, each: name_len u32 | name | value_len i32 (-1: null) | value
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

const (
	// patience bounds a run.
	patience = 10 * time.Minute
	// largest part of a record that a file may claim: the largest that Kafka takes.
	largest = 100 << 20
)

var codecs = map[string]ottla.Codec{
	"none": ottla.None, "lz4": ottla.LZ4, "gzip": ottla.Gzip, "snappy": ottla.Snappy, "zstd": ottla.Zstd,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	usage := errors.New("usage: interop write BOOTSTRAP TOPIC FILE [none|lz4|gzip|snappy|zstd] | interop read BOOTSTRAP TOPIC COUNT FILE")
	if len(args) < 4 || len(args) > 5 {
		return usage
	}
	client, err := ottla.NewClientContext(ctx, ottla.Brokers(args[1]))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	switch {
	case args[0] == "write" && len(args) == 4:
		return write(ctx, client, args[2], args[3], "lz4")
	case args[0] == "write":
		return write(ctx, client, args[2], args[3], args[4])
	case args[0] == "read" && len(args) == 5:
		count, err := strconv.Atoi(args[3])
		if err != nil || count < 0 {
			return fmt.Errorf("COUNT is %q", args[3])
		}
		return read(ctx, client, args[2], count, args[4])
	default:
		return usage
	}
}

func write(ctx context.Context, client *ottla.Client, topic, path, compression string) error {
	codec, known := codecs[compression]
	if !known {
		return fmt.Errorf("compression is %q; none, lz4, gzip, snappy or zstd", compression)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	producer, err := client.NewProducer(ottla.Compression(codec), ottla.MaxRecordSize(8<<20))
	if err != nil {
		return err
	}
	in := &reader{in: bufio.NewReaderSize(file, 1<<20)}
	sent, acknowledged := 0, 0
	var first error
	for {
		record, err := in.record(topic)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s, record %d: %w", path, sent, err)
		}
		sent++
		producer.Produce(ctx, record, func(_ ottla.Delivery, err error) {
			if err == nil {
				acknowledged++
			} else if first == nil {
				first = err
			}
		})
	}
	// The callbacks have returned when Flush does.
	if err := producer.Flush(ctx); err != nil {
		return err
	}
	if acknowledged != sent {
		return fmt.Errorf("%d of %d records acknowledged: %w", acknowledged, sent, first)
	}
	fmt.Printf("wrote %d records to %s (%s)\n", sent, topic, compression)
	return nil
}

func read(ctx context.Context, client *ottla.Client, topic string, count int, path string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	out := bufio.NewWriterSize(file, 1<<20)
	consumer, err := client.NewConsumer(ottla.Topics(topic), ottla.Start(ottla.Earliest()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, consumer.Close()) }()
	got := 0
	var buf []byte
	if count > 0 {
		for record, err := range consumer.Records(ctx) {
			if err != nil {
				var e *ottla.Error
				if ctx.Err() == nil && errors.As(err, &e) && e.Retriable {
					fmt.Fprintln(os.Stderr, "interop: goes on after:", err)
					continue
				}
				return fmt.Errorf("after %d of %d records: %w", got, count, err)
			}
			buf = appendRecord(buf[:0], &record)
			if _, err := out.Write(buf); err != nil {
				return err
			}
			if got++; got == count {
				break
			}
		}
	}
	if got != count {
		return fmt.Errorf("%d of %d records", got, count)
	}
	fmt.Printf("read %d records from %s\n", got, topic)
	return out.Flush()
}

func appendRecord(buf []byte, r *ottla.Record) []byte {
	buf = binary.LittleEndian.AppendUint32(buf, uint32(r.Partition))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.Offset))
	buf = appendNullable(buf, r.Key)
	buf = appendNullable(buf, r.Value)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(r.Headers)))
	for _, h := range r.Headers {
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(h.Name)))
		buf = append(buf, h.Name...)
		buf = appendNullable(buf, h.Value)
	}
	return buf
}

func appendNullable(buf, part []byte) []byte {
	if part == nil {
		return binary.LittleEndian.AppendUint32(buf, ^uint32(0))
	}
	return append(binary.LittleEndian.AppendUint32(buf, uint32(len(part))), part...)
}

// reader takes records off a file.
type reader struct{ in *bufio.Reader }

// record gives io.EOF only between records.
func (r *reader) record(topic string) (ottla.Record, error) {
	var head [12]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return ottla.Record{}, err
	}
	record := ottla.Record{Topic: topic}
	if p := int32(binary.LittleEndian.Uint32(head[:])); p >= 0 {
		record.To = ottla.ToPartition(p)
	}
	err := func() (err error) {
		if record.Key, err = r.nullable(); err != nil {
			return err
		}
		if record.Value, err = r.nullable(); err != nil {
			return err
		}
		headers, err := r.length()
		if err != nil {
			return err
		}
		for ; headers > 0; headers-- {
			name, err := r.nullable()
			if err != nil {
				return err
			}
			value, err := r.nullable()
			if err != nil {
				return err
			}
			record.Headers = append(record.Headers, ottla.Header{Name: string(name), Value: value})
		}
		return nil
	}()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return record, err
}

func (r *reader) length() (int32, error) {
	var b [4]byte
	_, err := io.ReadFull(r.in, b[:])
	return int32(binary.LittleEndian.Uint32(b[:])), err
}

func (r *reader) nullable() ([]byte, error) {
	n, err := r.length()
	if err != nil || n == -1 {
		return nil, err
	}
	if n < 0 || n > largest {
		return nil, fmt.Errorf("a length of %d", n)
	}
	part := make([]byte, n)
	_, err = io.ReadFull(r.in, part)
	return part, err
}
