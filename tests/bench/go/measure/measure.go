// Package measure is what the programs of this module share: the records they move, and how the processor is read.
//
// Each program is one client and one measurement in a process of its own, as ottla-bench starts it:
//
//	program FIGURE RECORDS BOOTSTRAP
//
// and prints one JSON object.
package measure

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Topic of every measurement.
const Topic = "bench"

// Values are distinct values, sent again and again: a power of two.
const Values = 1 << 12

const valueLen = 100

// core of a client; the brokers have the other.
const core = 0

// Job is what a process is to measure.
type Job struct {
	Figure    string
	Records   int
	Bootstrap string
}

// Client moves so many records, and gives how many it moved: at least as many.
type Client func(records int) (int, error)

type measured struct {
	CPUNs float64 `json:"cpu_ns"`
	// Of the program and its client: what Go's heap was asked for.
	Allocations float64 `json:"allocations"`
	PerSecond   float64 `json:"per_second"`
	PeakMB      float64 `json:"peak_mb"`
	RSSMB       float64 `json:"rss_mb"`
}

// Main measures what begin gives, which must end by itself.
func Main(begin func(Job) (client Client, end func() error, err error)) {
	if err := run(begin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(begin func(Job) (Client, func() error, error)) error {
	if len(os.Args) != 4 {
		return fmt.Errorf("usage: %s FIGURE RECORDS BOOTSTRAP", os.Args[0])
	}
	records, err := strconv.Atoi(os.Args[2])
	if err != nil || records < 1 {
		return fmt.Errorf("%q is no number of records", os.Args[2])
	}
	if err := pin(); err != nil {
		return err
	}
	client, end, err := begin(Job{os.Args[1], records, os.Args[3]})
	if err != nil {
		return err
	}
	// Connections, metadata and warm buffers are not what is measured.
	if _, err := client(min(max(records/10, 10_000), 400_000)); err != nil {
		return err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, begun := processor(), time.Now()
	moved, err := client(records)
	if err != nil {
		return err
	}
	cpu, took := processor()-cpu, time.Since(begun)
	runtime.ReadMemStats(&after)
	peak, resident := memory()
	out, err := json.Marshal(measured{
		CPUNs:       float64(cpu) / float64(moved),
		Allocations: float64(after.Mallocs-before.Mallocs) / float64(moved),
		PerSecond:   float64(moved) / took.Seconds(),
		PeakMB:      peak, RSSMB: resident,
	})
	if err != nil {
		return err
	}
	fmt.Println(string(out))
	return end()
}

func pinned() bool { return os.Getenv("OTTLA_BENCH_PINNED") != "" }

// pin keeps the process on one core. Threads that Go has started already can not be told apart, so the program
// begins anew with what this thread may use.
func pin() error {
	if pinned() {
		return nil
	}
	runtime.LockOSThread()
	mask := [16]uint64{core / 64: 1 << (core % 64)}
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	if errno != 0 {
		// A measurement without is noisier, not wrong.
		runtime.UnlockOSThread()
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, append(os.Environ(), "OTTLA_BENCH_PINNED=1"))
}

// processor is user and system time of all threads of this process.
func processor() time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// memory is the most that the process had at one time, and what it has, in megabytes.
func memory() (peak, resident float64) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	of := func(name string) float64 {
		for line := range strings.Lines(string(status)) {
			if rest, found := strings.CutPrefix(line, name); found {
				kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				return kib * 1024 / 1e6
			}
		}
		return 0
	}
	return of("VmHWM:"), of("VmRSS:")
}

// MakeValues makes values as those of ottla-bench are: JSON with repeated names and changing fields.
func MakeValues() [][]byte {
	pages := []string{"/", "/cart", "/search", "/account", "/product"}
	state := uint64(0x5eed)
	draw := func() int {
		state = state*6_364_136_223_846_793_005 + 1_442_695_040_888_963_407
		return int(state >> 33)
	}
	values := make([][]byte, Values)
	for i := range values {
		text := fmt.Sprintf(`{"id":%d,"user":%d,"event":"page_view","page":"%s","took_ms":%d,"ok":true,"pad":"`,
			1_000_000+i, 10_000+draw()%90_000, pages[draw()%len(pages)], 100+draw()%900)
		values[i] = append(append(make([]byte, 0, valueLen), text...), strings.Repeat(" ", valueLen-2-len(text))+`"}`...)
	}
	return values
}

// Sum looks at every byte of a value.
func Sum(value []byte) (sum uint64) {
	for ; len(value) >= 8; value = value[8:] {
		sum += binary.LittleEndian.Uint64(value)
	}
	for _, b := range value {
		sum += uint64(b)
	}
	return sum
}
